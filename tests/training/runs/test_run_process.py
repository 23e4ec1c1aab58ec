"""training/runs/run_process.py: whatever ends a run's process, the run says so, and nothing that it started is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from settings import Settings
from store import files
from tests.helpers.child import run as run_python
from tests.helpers.run_helpers import alive, begun, pid_of, plain
from tests.helpers.waiting import until
from training.events import CANCEL, PROCESS, QUEUED
from training.runs import run_process
from training.runs.run_process import MARK
from training.runs.runs import Runs


@pytest.mark.parametrize("how", ["SIGKILL", "code 3"])
def test_r12_a_death_is_an_interruption_with_its_reason(runs: Runs, home: Path, how: str) -> None:
    run = begun(runs, home)
    if how == "SIGKILL":
        os.kill(pid_of(run), signal.SIGKILL)
    else:
        (run.folder / "crash").touch()
    run = runs.wait(run.id)
    assert run.state == "interrupted" and not run.resumable and run.may("resume")
    result = run.result
    assert "nothing was published" in result["what"] and "begins anew" in result["next"]
    assert how in result["why"] and "log" in result
    assert Runs(Settings(home=home)).get(run.id).result == result, "the reason is in the folder"
    (run.folder / "crash").unlink(missing_ok=True)
    runs.resume(run.id)
    until(lambda: runs.get(run.id).state == "running")


SUBMIT = """
import os, sys
from pathlib import Path
from settings import Settings
from store import files, processes
from tests.helpers.child import run as run_python
from tests.helpers.run_helpers import STAND_IN, plain
from training.runs.runs import Runs
home, step = Path(sys.argv[1]), sys.argv[2]
def killed(*_):
    os.kill(os.getpid(), 9)
def write(path, value, write=files.write_json):
    if path.name != "process.json" or step in ("released", "submitted"):
        return write(path, value)
    if step == "recorded":
        write(path, value)
    killed()
def unlink(path, missing_ok=False, unlink=Path.unlink):
    if path.name == "queued" and step != "submitted":
        killed()
    return unlink(path, missing_ok)
files.write_json, Path.unlink = write, unlink
if step == "queued":
    processes.start_detached = killed
Runs(Settings(home=home), STAND_IN).submit(plain(home))
killed()
"""


@pytest.mark.parametrize("step", ["queued", "started", "recorded", "released", "submitted"])
def test_r18_a_server_that_is_killed_after_each_step_of_a_start_leaves_one_process_at_most(
    runs: Runs, home: Path, step: str
) -> None:
    """The next server finds the run again, and its end."""
    assert run_python("-c", SUBMIT, str(home), step).returncode == -signal.SIGKILL
    [run] = runs.list()
    until(lambda: runs.advance() or run.progress.step)
    [run] = runs.list()
    assert run.state == "running" and not (run.folder / QUEUED).exists()
    until(lambda: [process.pid for process in run_process.find_processes(run.folder)] == [pid_of(run)])
    if step == "submitted":
        os.kill(pid_of(run), signal.SIGKILL)
        assert runs.wait(run.id).state == "interrupted" and "is gone" in runs.get(run.id).result["why"]


@pytest.mark.parametrize("name", ["stubborn", "deaf"])
@pytest.mark.parametrize("how", ["cancel", "kill"])
def test_r18_nothing_that_a_run_started_is_left(runs: Runs, home: Path, name: str, how: str) -> None:
    run = begun(runs, home, name)
    pids = [pid_of(run)]
    if name == "stubborn":
        pids.append(int((run.folder / "grandchild").read_text()))
    assert all(map(alive, pids))
    if how == "cancel":
        runs.cancel(run.id)
    else:
        os.kill(pids[0], signal.SIGKILL)
        runs.wait(run.id)
    assert runs.get(run.id).state == ("cancelled" if how == "cancel" else "interrupted")
    until(lambda: not any(map(alive, pids)))


def test_r38_a_run_holds_nothing_open_of_the_page(runs: Runs, home: Path) -> None:
    """Neither a socket nor a file, not even an inheritable one."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        held.set_inheritable(True)
        mine = os.readlink(f"/proc/self/fd/{held.fileno()}")
        run = begun(runs, home)
        opened = {os.readlink(path) for path in Path(f"/proc/{pid_of(run)}/fd").iterdir()}
    assert mine.startswith("socket:") and mine not in opened and len(opened) >= 3


SWEEP = """
import subprocess, sys
from pathlib import Path
from training.runs.run_process import sweep
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"], start_new_session=True)
sweep(Path(sys.argv[1]))
print(child.wait(30))
"""


def test_a_process_ends_its_children_and_lives(tmp_path: Path) -> None:
    others = subprocess.Popen(["sleep", "900"], env={MARK: f"{tmp_path}-other"})
    assert run_python("-c", SWEEP, str(tmp_path), **{MARK: str(tmp_path)}).stdout == f"{-signal.SIGKILL}\n"
    assert alive(others.pid)
    others.kill()
    others.wait()


def test_r18_a_cancel_by_a_process_that_died_is_finished_by_another(runs: Runs, home: Path) -> None:
    run = begun(runs, home, "deaf")
    (run.folder / CANCEL).touch()
    assert runs.get(run.id).state == "running", "it has a grace"
    os.utime(run.folder / CANCEL, (1, 1))
    runs.advance()
    until(lambda: runs.get(run.id).state == "cancelled")
    assert not alive(pid_of(run))


def test_r20_a_disk_that_is_full_after_the_process_began_leaves_none(
    runs: Runs, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process cannot be recorded: it ends before it has done anything, and the run says why."""
    write, seen = files.write_json, []

    def full(path: Path, value: Any) -> None:
        if path.name == PROCESS:
            seen.append(value["pid"])
            raise OSError(28, "No space left on device")
        write(path, value)

    monkeypatch.setattr(files, "write_json", full)
    run = runs.submit(plain(home))
    assert run.state == "interrupted" and "No space left" in run.result["why"]
    assert len(seen) == 1 and not alive(seen[0]) and run.progress.step == 0
    monkeypatch.undo()
    runs.resume(run.id)
    until(lambda: run.progress.step)
