"""Tests of training/data/inspect: a child process reads a file of rows, with little memory and no network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from errors import DataError
from settings import REPOSITORY
from tasks import Columns, TabSpec
from tests.helpers import tiny
from tests.helpers.row_files import TEN, write_csv, write_jsonl
from tests.helpers.training_helpers import inspect, spec_of, write_rows
from training.__main__ import main as training
from training.data.inspect.__main__ import main
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER, Report
from training.runs.runs import Runs

pytestmark = pytest.mark.slow

LABELS = TabSpec("tab", "", "text-classification", Columns("text", "label"))
TEXTS = TabSpec("tab", "", "causal-lm", Columns("text", "summary"))


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TabSpec:
    return spec_of("bert", tiny.make("bert", tmp_path_factory.mktemp("base") / "bert"))


def test_a_file_is_reported_on_with_guessed_and_with_chosen_columns(
    runs: Runs, spec: TabSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = inspect(runs, write_rows(spec, home / "rows"), spec)
    assert (report.file, report.usable, report.labels) == ("rows.csv", 24, {"0": 12, "1": 12})
    monkeypatch.chdir(home)
    (home / "named.csv").write_text("body,kind\n" + "".join(f"row {i},{i % 2}\n" for i in range(10)))
    chosen = {"text": "body", "target": "kind"}
    assert inspect(runs, Path("named.csv"), replace(spec, model=""), chosen).mapping == chosen, (
        "also by a relative path"
    )


@pytest.mark.parametrize(
    ("name", "content", "refusal"),
    [("a.csv", "text,kind\n" + "x,y\n" * 9, "no column for target"), ("gone.csv", "", "not there")],
)
def test_an_error_of_the_child_is_raised(
    runs: Runs, spec: TabSpec, tmp_path: Path, name: str, content: str, refusal: str
) -> None:
    (tmp_path / "a.csv").write_text(content)
    with pytest.raises(DataError, match=refusal):
        inspect(runs, tmp_path / name, spec)
    with pytest.raises(DataError, match="does not learn"):
        inspect(runs, tmp_path / name, TabSpec("own", "", "causal-lm"))


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
    assert inspect(runs, path, spec, last.mapping, 8) is last
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
    report = inspect(runs, path, absent)
    assert (report.tokens, report.untokenized, report.rendered) == (None, LATER, ())


def test_the_command_describes_a_file(
    spec: TabSpec, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(home))
    path = home / "rows.csv"
    path.write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)) + ",a\n", encoding="utf-8")
    command = ["inspect", "--plugin", "classification", "--base", spec.model, "--data", str(path)]
    assert training([*command, "--bad-rows", str(home / "bad.jsonl")]) == 0
    printed = capsys.readouterr().out
    for part in ("1 rows that are left out", "21 rows, 20 usable", "tokens of a row", "[[what it learns]]", "-> [[a]]"):
        assert part in printed
    assert "text is empty" in (home / "bad.jsonl").read_text(encoding="utf-8")
    assert training([*command, "--columns", "text=absent"]) == 2
    assert "no column 'absent'" in capsys.readouterr().err


# The process as the page runs it, without a network; prints the heavy modules that it imported.
CHILD = """
import runpy, socket, sys
def refuse(*_):
    raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
try:
    runpy.run_module("training.data.inspect", run_name="__main__")
finally:
    print([name for name in ("torch", "transformers", "gradio") if sys.modules.get(name)], file=sys.stderr)
"""


def run_child(home: Path, inspection: Inspection) -> subprocess.CompletedProcess[str]:
    for name in ("temporary", "hf"):
        (home / name).mkdir(exist_ok=True)
    env = {"PATH": os.environ["PATH"], "HOME": str(home / "hf"), "TMPDIR": str(home / "temporary")}
    command = [sys.executable, "-c", CHILD, inspection.to_json()]
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_the_child_prints_a_report_or_an_error(tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", [{"body": row["text"], "kind": row["label"]} for row in TEN])
    done = run_child(tmp_path, Inspection(path, LABELS, {"text": "body", "target": "kind"}))
    assert (done.returncode, done.stderr) == (0, "[]\n")
    [report] = map(Report.from_json, done.stdout.splitlines())
    assert report.labels == {"a": 5, "b": 5}
    done = run_child(tmp_path, Inspection(path, LABELS, {"text": "absent"}))
    assert (done.returncode, done.stderr) == (2, "[]\n")
    assert json.loads(done.stdout).keys() == {"what", "why", "next", "columns"}
    assert [file for name in ("temporary", "hf") for file in (tmp_path / name).rglob("*")] == []


def test_r22_the_child_limits_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    limits: list[Any] = []
    monkeypatch.setattr("resource.setrlimit", lambda *limit: limits.append(limit))
    path = write_csv(tmp_path / "a.csv", TEN)
    assert main([Inspection(path, LABELS).to_json()], memory=5) == 0
    assert [limit[1] for limit in limits] == [(5, 5)]
    assert main([Inspection(tmp_path / "b.csv", LABELS).to_json()], memory=5) == 2
    assert "is not there" in json.loads(capsys.readouterr().out.splitlines()[-1])["what"]


MEASURED = """
import sys
from training.data.inspect.__main__ import main
code = main([sys.argv[2]], memory=int(sys.argv[1]))
with open("/proc/self/status") as status:
    print([int(line.split()[1]) * 1024 for line in status if line.startswith("VmPeak")][0], file=sys.stderr)
sys.exit(code)
"""


def test_a_large_file_needs_little_more_memory_than_a_small_one(tmp_path: Path):
    """60 MB of rows, in a process that is allowed 40 MB more than eight rows took."""

    def report(rows: int, memory: int) -> tuple[Report, int]:
        path = tmp_path / "rows.jsonl"
        with path.open("w") as file:
            file.writelines(f'{{"text": "text {i} {"words " * 160}", "summary": "{i}"}}\n' for i in range(rows))
        child = subprocess.run(
            [sys.executable, "-c", MEASURED, str(memory), Inspection(path, TEXTS).to_json()],
            cwd=REPOSITORY,
            env={"PATH": os.environ["PATH"], "MALLOC_ARENA_MAX": "2"},
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stdout + child.stderr
        return Report.from_json(child.stdout.splitlines()[0]), int(child.stderr)

    _, small = report(8, 4 * 2**30)
    large, _ = report(60_000, small + 40_000_000)
    assert (large.usable, large.words["max"]) == (60_000, 162)
    assert (tmp_path / "rows.jsonl").stat().st_size > 58_000_000


def test_r22_small_files_that_unpack_to_large_ones_are_refused(tmp_path: Path):
    cells = pa.array(["x" * 100_000] * 1000).dictionary_encode()
    pq.write_table(pa.table({"text": cells, "label": ["a"] * 1000}), tmp_path / "a.parquet", compression="zstd")
    assert (tmp_path / "a.parquet").stat().st_size < 1000
    (tmp_path / "a.jsonl").write_text('{"text": "' + "x" * 200_000_000 + '"}\n')
    (tmp_path / "b.jsonl").write_text('{"text": ' * 10_000 + "1" + "}" * 10_000 + "\n")
    (tmp_path / "a.json").write_text('[{"text": "' + "x" * 200_000_000 + '"}]')
    (tmp_path / "b.json").write_text('[{"text": ' + "[" * 9_000_000 + "]" * 9_000_000 + "}]")
    refusals = {"a.parquet": "more than 50 MB", "a.jsonl": "10,000,000 characters", "b.jsonl": "too long"}
    for name, refusal in {**refusals, "a.json": "10,000,000 characters", "b.json": "10,000,000 characters"}.items():
        done = run_child(tmp_path, Inspection(tmp_path / name, LABELS))
        assert (done.returncode, done.stderr) == (2, "[]\n")
        assert refusal in json.loads(done.stdout)["why"], name
