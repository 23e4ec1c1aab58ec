"""The processes of runs: none starts unrecorded, each is recognised by more than its pid, and ends with all it began.

A child waits for a byte on its standard input before it does anything. Its parent records its pid in the run's folder
first, so a parent that dies or meets a full disk in between leaves no process behind: the child reads the end of the
pipe and exits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from settings import LEAN, child_environment
from store import files, processes
from training.events import CANCEL, LOG, PAUSE, PROCESS, QUEUED, RESULT

MARK = "GRAFT_RUN"
"""Environment variable with a run's folder, inherited by everything that the run starts: by it processes are found."""
TRACKIO_FOLDER = "TRACKIO_DIR"
"""Environment variable with the folder of Trackio's databases."""
GO = b"\n"
GRACE_S = 5.0
"""Seconds between SIGTERM and SIGKILL."""
SWEEPS = 5
"""Times that leftovers are looked for, because one may start another just before it is killed."""


class Note(NamedTuple):
    """The record of a run's last process."""

    pid: int
    begun: float | None
    """When it was started, in Unix seconds."""
    seconds: float
    """How long the run had run before."""


NO_PROCESS = Note(0, None, 0.0)
_CHILDREN: dict[Path, subprocess.Popen[bytes]] = {}
"""The last child of this process for each run's folder, to reap it and to read its exit status."""


def start(command: Sequence[str], folder: Path, home: Path, seconds: float) -> None:
    """Start `command`, with the run's folder as its last argument, and take the run out of the queue.

    `seconds` is how long the run has run before. Raises `OSError`, and then there is no process. The run stays queued
    if this process is killed before the child was let go.
    """
    for name in (PAUSE, RESULT, CANCEL):
        (folder / name).unlink(missing_ok=True)
    variables = {"GRAFT_HOME": str(home), TRACKIO_FOLDER: str(home / "trackio"), MARK: str(folder)}
    child = processes.start_detached([*command, str(folder)], child_environment(**LEAN, **variables), folder / LOG)
    try:
        files.write_json(folder / PROCESS, {"pid": child.pid, "begun": time.time(), "seconds": seconds})
        _CHILDREN[folder] = child
    except BaseException:
        child.kill()
        child.communicate()
        raise
    if child.stdin:
        with suppress(BrokenPipeError), child.stdin as word:  # it may have ended already
            word.write(GO)
    (folder / QUEUED).unlink(missing_ok=True)


def alive(folder: Path) -> bool:
    """Return whether the process of a run is running."""
    pid, child = read_note(folder).pid, _CHILDREN.get(folder)
    if child and child.pid == pid:
        # A child of ours stays a zombie until its parent polls it.
        return child.poll() is None
    with suppress(psutil.Error):
        return pid > 0 and _is_of(psutil.Process(pid), folder)
    return False


def reap() -> None:
    """Reap children that have ended; they would stay zombies for as long as this process lives."""
    for child in [*_CHILDREN.values()]:
        child.poll()


def end(folder: Path, grace_s: float = GRACE_S) -> None:
    """End a run's process group with SIGTERM, after `grace_s` seconds with SIGKILL, and whatever else it started."""
    if alive(folder):
        pid = read_note(folder).pid
        _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while alive(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        # Also where the leader has ended: its group keeps the number for as long as anybody is in it.
        _signal_group(pid, signal.SIGKILL)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Kill what a run has started, this process aside, in whatever process group it is."""
    for _ in range(SWEEPS):
        found = list(_leftovers(folder))
        for process in found:
            with suppress(psutil.Error):
                process.kill()
        if not found:
            return


def death(folder: Path) -> str:
    """Explain why a process that left no result may have ended, as far as this process can know."""
    child = _CHILDREN.get(folder)
    status = child.poll() if child and child.pid == read_note(folder).pid else None
    if status is None:
        return "Its process is gone and left no result; the machine may have been restarted or out of memory."
    if -status in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
        name = signal.Signals(-status).name
        return f"Its process was killed ({name}); the usual cause is that the machine ran out of memory."
    if status < 0:
        return f"Its process was ended by {signal.Signals(-status).name}."
    return f"Its process ended with code {status}."


def read_note(folder: Path) -> Note:
    """Read the record of a run's process; one of 0.1 is as old as its file."""
    path = folder / PROCESS
    try:
        note = files.read_json(path)
        begun = float(note.get("begun") or path.stat().st_mtime)
        return Note(int(note["pid"]), begun, float(note.get("seconds", 0)))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return NO_PROCESS


def age() -> float:
    """Return the seconds since this process began."""
    return time.time() - float(psutil.Process().create_time())


def _is_of(process: psutil.Process, folder: Path) -> bool:
    # A zombie has no environment; that of another user's process cannot be read, and is none of ours.
    return bool(process.environ().get(MARK) == str(folder))


def _leftovers(folder: Path) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and _is_of(process, folder):
                yield process


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
