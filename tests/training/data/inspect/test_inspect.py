"""Runs.inspect: what is in a file of rows, read by a child process; and what the parent's side never imports."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from errors import DataError
from settings import REPOSITORY
from tasks import Columns, TabSpec
from tests.helpers import tiny
from tests.helpers.training_helpers import spec_of, write_rows
from training.__main__ import main
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER
from training.runs.runs import Runs


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TabSpec:
    return spec_of("bert", tiny.make("bert", tmp_path_factory.mktemp("base") / "bert"))


def test_inspect_tells_what_is_in_a_file(
    runs: Runs, spec: TabSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(spec, home / "rows")
    report = runs.inspect(path, spec)
    assert (report.file, report.usable, report.labels) == ("rows.csv", 24, {"0": 12, "1": 12})
    monkeypatch.chdir(home)
    assert runs.inspect(Path("rows.csv"), spec).usable == 24, "a relative path is the caller's"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"text,kind\n" + b"x,y\n" * 9, "no column for target"),
        ("a.csv", b"text,label\na,1\nb,1\n", "only"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", "UTF-8"),
        ("a.csv", b"", "empty"),
        ("a.parquet", b"text,label\n", "says Parquet"),
        ("gone.csv", None, "not there"),
    ],
    ids=["column", "few rows", "bytes", "empty", "format", "missing"],
)  # fmt: skip
def test_inspect_refuses_with_the_readers_words(
    runs: Runs, spec: TabSpec, tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        runs.inspect(tmp_path / name, spec)
    assert told in str(caught.value) and "Traceback" not in str(caught.value)


def test_inspect_of_a_tab_that_does_not_learn(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not learn"):
        runs.inspect(tmp_path / "a.csv", TabSpec("own", "", "causal-lm"))


def test_the_parent_imports_no_torch() -> None:
    heavy = ("torch", "transformers", "datasets", "gradio")
    code = f"import training.runs.runs, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_columns_come_back_as_they_were_chosen(runs: Runs, home: Path) -> None:
    spec = TabSpec("classification", "m", "text-classification", Columns(text="text", target="label"))
    path = home / "named.csv"
    path.write_text("body,kind\n" + "".join(f"row {i},{i % 2}\n" for i in range(10)))
    assert runs.inspect(path, spec, {"text": "body", "target": "kind"}).mapping == {"text": "body", "target": "kind"}


def test_the_report_comes_bit_by_bit_and_is_kept(runs: Runs, spec: TabSpec, home: Path) -> None:
    path, held_out = write_rows(spec, home / "rows"), home / "own.csv"
    held_out.write_text("text,label\nGREAT work: number 0,0\nof no label,x\n", encoding="utf-8")
    asked = Inspection(path, spec, max_length=8, held_out=held_out)
    first, second, last = runs.look(asked)
    assert (first.near, first.held_out, first.tokens) == (None, None, None)
    assert second.near and second.held_out and second.tokens is None
    assert (last.held_out.known, last.held_out.unknown, last.held_out.shared) == (1, {"x": 1}, 1)
    assert (last.tokens.rows, last.tokens.limit, last.tokens.truncated) == (24, 8, 24)
    assert [row.answer for row in last.rendered] == [row["target"] for row in last.sample] and last.rendered[0].cut
    assert list(runs.look(asked)) == [last]
    assert runs.inspect(path, spec, last.mapping, 8) is last
    assert runs.write_bad_rows(Inspection(held_out, spec), home / "bad.jsonl") == 0


def test_bad_rows_are_looked_for_in_as_many_rows_as_the_setting_allows(
    runs: Runs, spec: TabSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_ROWS", "23")
    path = write_rows(spec, home / "rows")
    with pytest.raises(DataError, match="The limit is 23"):
        runs.write_bad_rows(Inspection(path, spec), home / "bad.jsonl")


def test_a_base_that_is_not_here_is_waited_for(runs: Runs, spec: TabSpec, home: Path) -> None:
    path, absent = write_rows(spec, home / "rows"), replace(spec, model="org/nowhere")
    report = runs.inspect(path, absent)
    assert (report.tokens, report.untokenized, report.rendered) == (None, LATER, ())


def test_the_command_describes_a_file(
    spec: TabSpec, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(home))
    path = home / "rows.csv"
    path.write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)) + ",a\n", encoding="utf-8")
    command = ["inspect", "--plugin", "classification", "--base", spec.model, "--data", str(path)]
    assert main([*command, "--bad-rows", str(home / "bad.jsonl")]) == 0
    said = capsys.readouterr().out
    for part in ("1 rows that are left out", "21 rows, 20 usable", "tokens of a row", "[[what it learns]]", "-> [[a]]"):
        assert part in said
    assert "text is empty" in (home / "bad.jsonl").read_text(encoding="utf-8")
    assert main([*command, "--columns", "text=absent"]) == 2
    assert "no column 'absent'" in capsys.readouterr().err
