"""store/processes.py: lines of a child as they come, its refusal as an error, and no process left behind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from errors import DataError
from store import processes
from tests.helpers.waiting import until


def lines_of(code: str, seconds: float | None = None) -> Iterator[str]:
    died = DataError("It ended early.")
    return processes.lines([sys.executable, "-c", code], DataError.from_dict, died, seconds=seconds)


def test_the_lines_of_a_child_arrive_and_its_refusal_is_raised_with_all_parts() -> None:
    code = "import sys; from errors import DataError; from store.processes import fail; print('one')"
    lines = lines_of(f"{code}; sys.exit(fail(DataError('No rows.', 'It is empty.', 'Add some.')))")
    assert next(lines) == "one\n"
    with pytest.raises(DataError) as raised:
        next(lines)
    assert (raised.value.what, raised.value.why, raised.value.next) == ("No rows.", "It is empty.", "Add some.")


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "raise SystemExit(2)", "import os; os.kill(os.getpid(), 9)"])
def test_a_child_that_ends_without_a_reason_is_an_error_too(code: str) -> None:
    with pytest.raises(DataError, match="It ended early"):
        list(lines_of(code))


def test_a_child_that_takes_too_long_is_ended() -> None:
    with pytest.raises(TimeoutError):
        list(lines_of("import time; time.sleep(600)", seconds=0.5))


def test_a_reader_that_goes_away_ends_the_child_and_what_it_started() -> None:
    code = (
        "import subprocess, sys, time; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        "print(child.pid, flush=True); time.sleep(600)"
    )
    reader = lines_of(code)
    grandchild = int(next(reader))
    reader.close()
    until(lambda: not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE)


def test_a_tick_that_raises_ends_the_child(tmp_path: Path) -> None:
    def cancel() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        processes.run(processes.python("http.server", "0"), {"PATH": ""}, tmp_path, tmp_path / "log", cancel)


def test_output_of_a_child_goes_into_its_log(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; print('out'); print('error', file=sys.stderr); sys.exit(3)"]
    assert processes.run(command, {}, tmp_path, tmp_path / "log", lambda: None) == 3
    assert set((tmp_path / "log").read_text().split()) == {"out", "error"}


@pytest.mark.parametrize(("code", "seconds", "fine"), [("assert input() == 'ü'", 60, True), ("exit(1)", 60, False),
                                                       ("import time; time.sleep(600)", 0.5, False)])  # fmt: skip
def test_a_command_succeeds_if_it_ends_well_in_time(code: str, seconds: float, fine: bool) -> None:
    assert processes.succeeds([sys.executable, "-c", code], "ü", seconds) is fine
