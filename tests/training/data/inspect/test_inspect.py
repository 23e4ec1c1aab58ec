"""Tests of the report on a file of rows that a child process reads for `Runs` and the command line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from errors import DataError
from tasks import TabSpec
from tests.helpers import tiny
from tests.helpers.training_helpers import spec_of, write_rows
from training.__main__ import main
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER
from training.runs.runs import Runs


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TabSpec:
    return spec_of("bert", tiny.make("bert", tmp_path_factory.mktemp("base") / "bert"))


def test_a_file_is_reported_on_with_guessed_and_with_chosen_columns(
    runs: Runs, spec: TabSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = runs.inspect(write_rows(spec, home / "rows"), spec)
    assert (report.file, report.usable, report.labels) == ("rows.csv", 24, {"0": 12, "1": 12})
    monkeypatch.chdir(home)
    (home / "named.csv").write_text("body,kind\n" + "".join(f"row {i},{i % 2}\n" for i in range(10)))
    chosen = {"text": "body", "target": "kind"}
    assert runs.inspect(Path("named.csv"), replace(spec, model=""), chosen).mapping == chosen, "also by a relative path"


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [("a.csv", "text,kind\n" + "x,y\n" * 9, "no column for target"), ("gone.csv", "", "not there")],
)
def test_an_error_of_the_child_is_raised(
    runs: Runs, spec: TabSpec, tmp_path: Path, name: str, content: str, refusal: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=refusal):
        runs.inspect(tmp_path / name, spec)
    with pytest.raises(DataError, match="does not learn"):
        runs.inspect(tmp_path / name, TabSpec("own", "", "causal-lm"))


def test_the_report_comes_in_parts_and_is_kept(runs: Runs, spec: TabSpec, home: Path) -> None:
    path, held_out = write_rows(spec, home / "rows"), home / "own.csv"
    held_out.write_text("text,label\nGREAT work: number 0,0\nof no label,x\n", encoding="utf-8")
    inspection = Inspection(path, spec, max_length=8, held_out=held_out)
    first, second, last = runs.look(inspection)
    assert (first.held_out, first.tokens) == (None, None)
    assert second.held_out and second.tokens is None
    assert (last.held_out.known, last.held_out.unknown, last.held_out.shared) == (1, {"x": 1}, 1)
    assert last.held_out.examples == ("GREAT work: number 0",)
    assert (last.tokens.rows, last.tokens.limit, last.tokens.truncated) == (24, 8, 24)
    assert [row.answer for row in last.rendered] == [row["target"] for row in last.sample] and last.rendered[0].cut
    assert list(runs.look(inspection)) == [last]
    assert runs.inspect(path, spec, last.mapping, 8) is last
    assert runs.write_bad_rows(Inspection(held_out, spec), home / "bad.jsonl") == 0


def test_bad_rows_are_read_up_to_the_limit_of_rows(
    runs: Runs, spec: TabSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_ROWS", "23")
    path = write_rows(spec, home / "rows")
    with pytest.raises(DataError, match="The limit is 23"):
        runs.write_bad_rows(Inspection(path, spec), home / "bad.jsonl")


def test_a_report_waits_for_a_base_that_is_not_on_this_disk(runs: Runs, spec: TabSpec, home: Path) -> None:
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
    printed = capsys.readouterr().out
    for part in ("1 rows that are left out", "21 rows, 20 usable", "tokens of a row", "[[what it learns]]", "-> [[a]]"):
        assert part in printed
    assert "text is empty" in (home / "bad.jsonl").read_text(encoding="utf-8")
    assert main([*command, "--columns", "text=absent"]) == 2
    assert "no column 'absent'" in capsys.readouterr().err
