"""Child processes of the store: an explicit environment, output to a file, a callback while they run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

POLL_SECONDS = 0.2


def run(argv: Sequence[str], environment: dict[str, str], folder: Path, log: Path, tick: Callable[[], None]) -> int:
    """Run `argv` in `folder` with all its output in `log`, calling `tick` some times a second; returns the exit status.

    The child is killed when `tick` raises, which is how a caller cancels it, and on Ctrl-C.
    """
    with (
        log.open("wb") as out,
        subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=folder
        ) as process,
    ):
        try:
            return _wait(process, tick)
        except BaseException:
            process.kill()
            raise


def _wait(process: subprocess.Popen[bytes], tick: Callable[[], None]) -> int:
    while True:
        try:
            return process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            tick()
