"""Runs of a stand-in for the worker, for tests: real processes that do as files tell them."""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from store.adapters import AdapterStore
from tests.helpers.waiting import PATIENCE_S, until
from training.config import TrainConfig
from training.events import PROCESS
from training.runs.run import Run
from training.runs.runs import Runs

STAND_IN = (sys.executable, "-S", str(Path(__file__).with_name("stand_in.py")))


def end_all(runs: Runs) -> None:
    for run in runs.list():  # those that wait first, so that none begins
        runs.cancel(run.id)


def plain(home: Path, name: str = "plain") -> TrainConfig:
    """Make a configuration that only the stand-in can follow."""
    columns = {"text": "text", "target": "label"}
    return TrainConfig(name, "classification", "org/base", "text-classification", str(home / "gone.csv"), columns)


def pid_of(run: Run) -> int:
    return int(json.loads((run.folder / PROCESS).read_text())["pid"])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def blocked(inode: int) -> str:
    """Return the lines of /proc/locks of those who wait for a lock on the file of that inode."""
    lines = Path("/proc/locks").read_text().splitlines()
    return "".join(line + "\n" for line in lines if "->" in line and f":{inode} " in line)


def published(home: Path) -> list[str]:
    return [version.ref for version in AdapterStore(home).versions()]


def states(runs: Runs) -> dict[str, str]:
    return {run.name: run.state for run in runs.list()}


def begun(runs: Runs, home: Path, name: str = "plain") -> Run:
    """Submit a run of the stand-in; returns it once it has made a step."""
    run = runs.submit(plain(home, name))
    until(lambda: run.progress.step, PATIENCE_S)
    return runs.get(run.id)


@contextmanager
def file_limit(most: int) -> Iterator[None]:
    """Limit files of this process to a number of bytes, which does to a write what a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
