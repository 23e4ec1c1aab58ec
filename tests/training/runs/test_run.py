"""training/runs/run.py: the folder of a run says what state it is in, whatever is missing, damaged or there at once."""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path

import pytest

from errors import ConfigError, RunError
from tests.helpers.run_helpers import STAND_IN, begun, plain
from training.events import CANCEL, CONFIG, EVENTS, LOG, PROCESS, QUEUED, RESULT
from training.runs import run_process
from training.runs.run import ENDS, MAY, PARTICIPLES, STATES, Run, read_result, read_run, read_state
from training.runs.runs import Runs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / CONFIG).write_text(plain(tmp_path).to_json())
    return tmp_path / "a"


def read(folder: Path) -> Run:
    run = read_run(folder)
    assert run is not None
    return run


def result(state: str) -> str:
    return json.dumps({"state": state})


FILES: list[tuple[dict[str, str], str]] = [
    ({QUEUED: "1.5"}, "queued"),
    ({}, "interrupted"),
    ({CANCEL: ""}, "cancelled"),
    *(({RESULT: result(state)}, state) for state in ENDS),
    # A process was killed between two files of one change.
    ({QUEUED: "1.5", RESULT: result("paused")}, "queued"),
    ({QUEUED: "1.5", CANCEL: ""}, "queued"),
    *(({CANCEL: "", RESULT: result(state)}, "done" if state == "done" else "cancelled") for state in ENDS),
    # A disk or a hand damaged the result.
    *(({RESULT: text}, "interrupted") for text in ("", "{", "[]", result("running"), result("nonsense"), "\0")),
    ({QUEUED: "soon"}, "queued"),
    ({PROCESS: "{"}, "interrupted"),
    ({PROCESS: json.dumps({"pid": os.getpid(), "begun": "x"})}, "interrupted"),
    # 0.1 noted when a process started in ticks, and another process may have its pid today.
    ({PROCESS: json.dumps({"pid": os.getpid(), "started": 1})}, "interrupted"),
]


@pytest.mark.parametrize(("there", "state"), FILES)
def test_the_state_is_what_the_files_say(folder: Path, there: dict[str, str], state: str) -> None:
    for name, text in there.items():
        (folder / name).write_text(text)
    assert read_state(folder) == read(folder).state == state
    assert bool(read_result(folder)) == (there.get(RESULT) in map(result, ENDS))


def test_a_run_goes_on_as_long_as_its_process(folder: Path) -> None:
    run_process.start(STAND_IN, folder, folder.parent, 0)
    try:
        for name, text in {"": "", QUEUED: "1", CANCEL: "", RESULT: "{"}.items():
            if name:
                (folder / name).write_text(text)
            assert read_state(folder) == "running" and read(folder).ended is None
            if name:
                (folder / name).unlink()
    finally:
        run_process.end(folder, 0)
    assert read_state(folder) == "interrupted"


def test_times_are_those_of_the_process_and_its_files(folder: Path) -> None:
    assert (read(folder).started, read(folder).duration) == (None, 0)
    (folder / PROCESS).write_text(json.dumps({"pid": 0, "begun": 1000.0, "seconds": 7.0}))
    for name, at in ((EVENTS, 1010), (LOG, 1020), (PROCESS, 1000), (RESULT, 1500)):
        (folder / name).touch()
        os.utime(folder / name, (at, at))
    assert (read(folder).ended, read(folder).duration) == (1020, 27), "another process wrote its result later"
    (folder / RESULT).write_text(result("done"))
    os.utime(folder / RESULT, (1015, 1015))
    assert (read(folder).ended, read(folder).duration) == (1015, 22), "its process may have printed more"
    (folder / PROCESS).write_text(json.dumps({"pid": 0, "started": 1}))
    os.utime(folder / PROCESS, (1000, 1000))
    assert (read(folder).started, read(folder).duration) == (1000, 15), "of 0.1"


@pytest.mark.parametrize(("verb", "state"), [*itertools.product(MAY, STATES)])
def test_a_change_is_refused_in_states_that_do_not_allow_it(folder: Path, verb: str, state: str) -> None:
    run = Run("a", folder, state, "n", "p", "d", 0, 0, None, None, 0, None, None, None)  # type: ignore[arg-type]
    if run.may(verb):  # type: ignore[arg-type]
        run.require(verb)  # type: ignore[arg-type]
        assert (verb, state) != ("delete", "running")
        assert verb == "delete" or state not in ("done", "failed", "cancelled")
    else:
        with pytest.raises(RunError, match=rf"is {state}\. .* can be {PARTICIPLES[verb]}\."):  # type: ignore[index]
            run.require(verb)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [None, b"{", b"[]", b"\xff"])
def test_a_damaged_configuration_is_an_error(folder: Path, text: bytes | None) -> None:
    run = read(folder)
    assert run.config.name == "plain"
    (folder / CONFIG).unlink()
    if text is not None:
        (folder / CONFIG).write_bytes(text)
    with pytest.raises(ConfigError):
        assert run.config
    assert read_run(folder) is None


def test_the_log_ends_with_its_last_lines(folder: Path) -> None:
    assert read(folder).log_tail() == []
    (folder / LOG).write_bytes(b"old\n" * 20_000 + b"10%\r20%\rlast \xff\n\n")
    assert read(folder).log_tail(3) == ["10%", "20%", "last \ufffd"]


def test_a_folder_that_did_not_change_is_not_read_again(runs: Runs, home: Path) -> None:
    """Thousands of runs are listed several times a second; what another process changes is seen at once."""
    first = begun(runs, home)
    runs.cancel(first.id)
    assert runs.get(first.id).state == "cancelled"
    old = time.time() - 60
    os.utime(first.folder, (old, old))
    before = runs.get(first.id)
    (first.folder / CONFIG).write_text("spoiled in place")
    assert runs.get(first.id) == before
    (first.folder / QUEUED).write_text("1")
    assert runs.list() == []
