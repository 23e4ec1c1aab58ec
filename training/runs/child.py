"""The process of one run: `python -m training.runs.child RUN_DIR`, started by `training.runs.runs` alone.

It waits for the word that its start is noted, then for the machine, which only one run may use at a time, and only then
loads what is heavy and does the work. Its last act is to start whose turn it is next, so that a queue goes on with
neither page nor terminal.
"""

from __future__ import annotations

import logging
import os
import resource
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from errors import GraftError
from settings import Settings
from store import files
from training.estimate.estimate import Estimate
from training.events import PAUSE, RESULT
from training.runs import run_process
from training.runs.run_process import GO
from training.runs.runs import Runs

FACTOR = 2.0
"""Times what was estimated; of fifteen real runs none needed more than 1.13 of it (`python -m bench estimate`)."""
BESIDE = 2 * 2**30
"""Bytes for what the estimate does not count: stacks of threads, and what allocators reserve."""


def memory(expected: Estimate, settings: Settings) -> int:
    """Limit this process from here on; the limit in bytes, 0 for none, as on a GPU, whose driver reserves freely."""
    most = settings.run_memory_bytes
    if not most and expected.room.gpu:
        return 0
    most = most or int(FACTOR * expected.peak) + BESIDE
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    return most


DEVICE_LOCK = "device.lock"
"""Held by the one process that trains, whatever became of the database."""
NEVER_BEGAN = 75
NEVER_PAUSED = 76
REFUSED = 2
"""Exit code of a process whose settings or home are not those of this Graft."""
PAUSING_S = 900.0
"""How long the step that is under way and its checkpoint may take, once a run's time is over."""
NICENESS = 5
"""Serving in the same machine comes first."""
KILLED_FIRST = "1000"
"""What a machine without memory is told about this process: take it before the page."""


def main(folder: Path) -> int:
    """Run to the end; 0 when a version was published."""
    if sys.stdin.buffer.read(len(GO)) != GO:
        return NEVER_BEGAN  # whoever started this died, or could not note that it did
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    with suppress(OSError):
        os.nice(NICENESS)
        Path("/proc/self/oom_score_adj").write_text(KILLED_FIRST, encoding="utf-8")
    try:
        settings = Settings.from_env()
    except GraftError as error:
        # Interrupted, not failed: the run is whole, and goes on where a Graft that can read its home resumes it.
        told = {"what": error.what, "why": error.why, "next": error.next}
        files.write_json(folder / RESULT, {"state": "interrupted", **told})
        return REFUSED
    with files.lock(settings.home / DEVICE_LOCK):
        limit_time(folder, settings.run_seconds)
        code = work(folder, partial(memory, settings=settings))
    run_process.sweep(folder)
    try:
        Runs(settings).advance()
    except GraftError as error:
        logging.getLogger("graft").warning("%s", error)
    return code


def limit_time(folder: Path, seconds: float, grace_s: float = PAUSING_S) -> None:
    """Pause the run after so many seconds; end a process that has not paused after `grace_s` more."""
    for after, act in ((seconds, (folder / PAUSE).touch), (seconds + grace_s, partial(os._exit, NEVER_PAUSED))):
        timer = threading.Timer(after, act)
        timer.daemon = True
        timer.start()


def work(folder: Path, foreseen: Callable[[Estimate], object] = bool) -> int:
    """Do the work of the run in `folder`, with no more in memory than it needs; `foreseen` is told its estimate."""
    from training.loop import lean_imports  # noqa: PLC0415 - torch, and only now

    lean_imports.leave_out(folder)
    from training import worker  # noqa: PLC0415 - transformers, without what was left out

    return worker.main(folder, foreseen)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
