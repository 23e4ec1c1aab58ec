"""The processes of runs: each is recorded before it works, recognised by more than its pid, and ends with its children.

A child waits for a byte on its standard input before it does anything. Its parent records its pid in the run's folder
first. If the parent dies or the disk is full in between, the child reads the end of the pipe and exits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from process_setup import RUN_ENVIRONMENT
from settings import child_environment
from store import files, processes
from training.config import TRACKIO
from training.events import CANCEL, LOG, PAUSE, PROCESS, QUEUED, RESULT

MARK = "GRAFT_RUN"
"""Environment variable with the run's folder. A run's children inherit it, and are found by it."""
GO = b"\n"
"""The byte that a child waits for."""
GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""
SWEEPS = 5
"""Searches for child processes, because one may start another just before it is killed."""


class ProcessRecord(NamedTuple):
    """The record of a run's last process."""

    pid: int
    started: float | None
    """Time of its start, in Unix seconds."""
    seconds: float
    """Seconds that the run had run before."""


_CHILDREN: dict[Path, subprocess.Popen[bytes]] = {}
"""The last child of this process for each run's folder, to reap it and to read its exit status."""


def start(command: Sequence[str], folder: Path, home: Path, seconds: float) -> None:
    """Start `command`, with the run's folder as its last argument, and take the run out of the queue.

    `seconds` is the time that the run has run before. Raises `OSError`, and then there is no process. The run stays
    queued if this process is killed before it has sent `GO`.
    """
    for name in (PAUSE, RESULT, CANCEL):
        (folder / name).unlink(missing_ok=True)
    variables = {"GRAFT_HOME": str(home), "TRACKIO_DIR": str(home / TRACKIO), MARK: str(folder)}
    child = processes.start_detached(
        [*command, str(folder)], child_environment(**RUN_ENVIRONMENT, **variables), folder / LOG
    )
    try:
        files.write_json(folder / PROCESS, {"pid": child.pid, "begun": time.time(), "seconds": seconds})
        _CHILDREN[folder] = child
    except BaseException:
        child.kill()
        child.communicate()
        raise
    if child.stdin:
        with suppress(BrokenPipeError), child.stdin:  # it may have ended already
            child.stdin.write(GO)
    (folder / QUEUED).unlink(missing_ok=True)


def alive(folder: Path) -> bool:
    """Return whether the process of a run is running."""
    pid, child = read_record(folder).pid, _CHILDREN.get(folder)
    if child and child.pid == pid:
        # A child of ours stays a zombie until its parent polls it.
        return child.poll() is None
    with suppress(psutil.Error):
        return pid > 0 and _is_of(psutil.Process(pid), folder)
    return False


def reap() -> None:
    """Reap children that have ended, so that they do not stay zombies."""
    for child in [*_CHILDREN.values()]:
        child.poll()


def end(folder: Path, grace_s: float = GRACE_S) -> None:
    """End a run's process group with SIGTERM, after `grace_s` seconds with SIGKILL, then all else that it started."""
    if alive(folder):
        pid = read_record(folder).pid
        _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while alive(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        # Also where the leader has ended: its children may remain in the group.
        _signal_group(pid, signal.SIGKILL)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Kill all processes that a run has started, apart from this one."""
    for _ in range(SWEEPS):
        found = find_processes(folder)
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        if not found:
            return


def find_processes(folder: Path) -> list[psutil.Process]:
    """Return the processes of a run, apart from this one."""
    return [process for process in psutil.process_iter() if process.pid != os.getpid() and _is_of(process, folder)]


def explain_end(folder: Path) -> str:
    """Return a sentence on why a process that left no result ended, as far as this process can know."""
    child = _CHILDREN.get(folder)
    status = child.poll() if child and child.pid == read_record(folder).pid else None
    if status is None:
        return "Its process is gone and left no result; the machine may have been restarted or out of memory."
    if -status in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
        name = signal.Signals(-status).name
        return f"Its process was killed ({name}); the usual cause is that the machine ran out of memory."
    if status < 0:
        return f"Its process was ended by {signal.Signals(-status).name}."
    return f"Its process ended with code {status}."


def read_record(folder: Path) -> ProcessRecord:
    """Read the record of a run's process; pid 0 where there is none. Graft 0.1 recorded no time."""
    path = folder / PROCESS
    try:
        facts = files.read_json(path)
        started = float(facts.get("begun") or path.stat().st_mtime)
        return ProcessRecord(int(facts["pid"]), started, float(facts.get("seconds", 0)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return ProcessRecord(0, None, 0.0)


def age() -> float:
    """Return the seconds since the start of this process."""
    return time.time() - float(psutil.Process().create_time())


def _is_of(process: psutil.Process, folder: Path) -> bool:
    # A zombie has no environment; that of another user's process cannot be read, and it is no run of ours.
    with suppress(psutil.Error):
        return bool(process.environ().get(MARK) == str(folder))
    return False


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
