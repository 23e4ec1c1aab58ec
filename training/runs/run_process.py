"""The processes of runs: none starts unknown, each is recognised by more than its number, and ends with all it began.

A child waits for a byte on its standard input before it does anything. Its parent writes down who it is first, so a
parent that dies or meets a full disk in between leaves no process that nobody knows of.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from process_setup import RUN_ENVIRONMENT
from settings import REPOSITORY, child_environment
from store import files
from training.events import LOG, PROCESS

MARK = "GRAFT_RUN"
"""Variable that names a run's folder to everything that the run starts; by it, what outlives a run is found."""
TRACKIO_FOLDER = "TRACKIO_DIR"
"""Variable by which Trackio knows where its databases are."""
GO = b"\n"
GRACE_S = 5.0
"""How long a process that is told to end may take to do so by itself."""
SWEEPS = 5
"""Times that leftovers are looked for, because one may start another just before it is ended."""

_CHILDREN: dict[tuple[int, int], subprocess.Popen[bytes]] = {}
"""Children of this process by pid and start, so that those that ended can be reaped and their exit codes read."""


class Child:
    """The process of one run, which waits for `go`. Raises `OSError`, and then there is no process."""

    def __init__(self, command: Sequence[str], folder: Path, home: Path) -> None:
        """Start `command` with the run's folder as its last argument, and note in that folder who it is."""
        listens, self._word = os.pipe()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with os.fdopen(listens, "rb") as word, (folder / LOG).open("ab") as log:
                self._process = subprocess.Popen(
                    [*command, str(folder)],
                    cwd=REPOSITORY,
                    env=child_environment(
                        **RUN_ENVIRONMENT,
                        **{"GRAFT_HOME": str(home), TRACKIO_FOLDER: str(home / "trackio"), MARK: str(folder)},
                    ),
                    stdin=word,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    close_fds=True,
                )
            pid, started = self._process.pid, start_time(self._process.pid)
            files.write_json(folder / PROCESS, {"pid": pid, "started": started})
            _CHILDREN[pid, started] = self._process
        except BaseException:
            self.abandon()
            raise

    def go(self) -> None:
        """Let it begin."""
        with suppress(BrokenPipeError), os.fdopen(self._word, "wb") as pipe:  # it may have ended already
            pipe.write(GO)

    def abandon(self) -> None:
        """End it before it began."""
        os.close(self._word)
        if self._process:
            self._process.kill()
            self._process.wait()


def alive(folder: Path) -> bool:
    """Whether the process that a run's folder names is running, and is still that one."""
    pid, noted = _note(folder)
    # A child that has ended stays a zombie until its parent asks; poll() of ours is that question.
    ours = _CHILDREN.get((pid, noted))
    if ours is not None:
        return ours.poll() is None
    # 0 in the note is a child that had ended before it was written, or no note.
    return noted != 0 and start_time(pid) == noted


def reap() -> None:
    """Take leave of children that have ended; they would be zombies for as long as this process lives."""
    for child in [*_CHILDREN.values()]:
        child.poll()


def end(folder: Path, grace_s: float = GRACE_S) -> None:
    """End a run's process group, kindly and after `grace_s` seconds without regard, and whatever else it started."""
    if alive(folder):
        pid, _ = _note(folder)
        _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while alive(folder) and time.monotonic() < deadline:
            time.sleep(0.05)
        # Also where the leader has ended: its group keeps the number for as long as anybody is in it.
        _signal_group(pid, signal.SIGKILL)
    sweep(folder)


def sweep(folder: Path) -> None:
    """Kill what a run has started, also when the run itself is gone and whatever group that has moved to."""
    for _ in range(SWEEPS):
        found = _marked(folder)
        for pid in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return


def death(folder: Path) -> str:
    """Why a process that left no result may have ended, as far as this process can know."""
    child = _CHILDREN.get(_note(folder))
    code = child.poll() if child else None
    if code is None:
        return "Its process is gone and left no result; the machine may have been restarted or out of memory."
    if -code in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
        name = signal.Signals(-code).name
        return f"Its process was killed ({name}); the usual cause is that the machine ran out of memory."
    if code < 0:
        return f"Its process was ended by {signal.Signals(-code).name}."
    return f"Its process ended with code {code}."


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none. With it, a pid names one process."""
    fields = _stat(pid)
    return 0 if not fields or fields[0] == "Z" else int(fields[19])


def age() -> float:
    """Seconds since this process began."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - start_time(os.getpid()) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the name, which may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _note(folder: Path) -> tuple[int, int]:
    """Pid and start of a run's process; zeros where it has none."""
    try:
        note = files.read_json(folder / PROCESS)
        return int(note["pid"]), int(note["started"])
    except (OSError, ValueError, TypeError, KeyError):
        return 0, 0


def _marked(folder: Path) -> list[int]:
    """Processes, this one aside, that were started by the run of that folder and are not zombies."""
    wanted, found = f"{MARK}={folder}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            pid = int(path.parent.name)
            if wanted in path.read_bytes().split(b"\0") and pid != os.getpid() and start_time(pid):
                found.append(pid)
    return found


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)
