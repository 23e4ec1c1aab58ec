"""The process of one run: `python -m training.runs.child RUN_DIR`, started by `training.runs.runs` alone.

It waits until its start is recorded and until no other run uses the machine, imports torch and does the work. At last
it starts the next run, so that the queue goes on without a page or a terminal.
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
from store.processes import REFUSED, make_expendable
from training.estimate.estimate import Estimate
from training.events import PAUSE, QUEUED, RESULT
from training.runs import run_process
from training.runs.run_process import GO
from training.runs.runs import Runs

DEVICE_LOCK = "device.lock"
"""File locked by the one process that trains."""
NEVER_BEGAN = 75
"""Exit status of a child that its parent did not record."""
NEVER_PAUSED = 76
"""Exit status of a child that did not pause when its time was over."""
MEMORY_FACTOR = 2.0
"""Limit of memory as a multiple of the estimate; of fifteen real runs none needed more than 1.13 of it."""
MEMORY_BESIDE = 2 * 2**30
"""Bytes added for stacks of threads and reserves of allocators, which the estimate does not count."""
PAUSING_S = 900.0
"""Seconds that the current step and its checkpoint may take once a run's time is over."""
NICENESS = 5
"""Lower priority than serving on the same machine."""


def main(folder: Path) -> int:
    """Carry out the run in `folder`; returns the exit status, 0 when a version was published."""
    if sys.stdin.buffer.read(len(GO)) != GO:
        return NEVER_BEGAN  # the parent died, or could not record it
    (folder / QUEUED).unlink(missing_ok=True)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    with suppress(OSError):
        os.nice(NICENESS)
    make_expendable(os.getpid())
    try:
        settings = Settings.from_env()
    except GraftError as error:
        # Interrupted, not failed: a Graft that can read this home can resume the run.
        files.write_json(folder / RESULT, {"state": "interrupted", **error.to_dict()})
        return REFUSED
    with files.lock(settings.home / DEVICE_LOCK):
        limit_time(folder, settings.run_seconds)
        status = work(folder, partial(limit_memory, settings=settings))
    run_process.sweep(folder)
    try:
        Runs(settings).advance()
    except GraftError as error:
        logging.getLogger("graft").warning("%s", error)
    return status


def limit_memory(estimate: Estimate, settings: Settings) -> int:
    """Limit the memory of this process from now on; returns the limit in bytes.

    0 is no limit, as on a GPU, whose driver reserves address space freely.
    """
    limit = settings.run_memory_bytes
    if not limit and estimate.available.gpu:
        return 0
    limit = limit or int(MEMORY_FACTOR * estimate.peak) + MEMORY_BESIDE
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    return limit


def limit_time(folder: Path, seconds: float, grace_s: float = PAUSING_S) -> None:
    """Pause the run after `seconds`; end the process if it has not paused `grace_s` seconds later."""
    for after, act in ((seconds, (folder / PAUSE).touch), (seconds + grace_s, partial(os._exit, NEVER_PAUSED))):
        timer = threading.Timer(after, act)
        timer.daemon = True
        timer.start()


def work(folder: Path, on_estimate: Callable[[Estimate], object] = bool) -> int:
    """Carry out the run in `folder` with only the libraries that it needs; returns the exit status of the worker."""
    from training.loop import lean_imports  # noqa: PLC0415 - imports torch

    lean_imports.block_unused(folder)
    from training import worker  # noqa: PLC0415 - imports transformers, which must not find what is blocked

    return worker.main(folder, on_estimate)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
