"""Waiting for a condition."""

import time
from collections.abc import Callable

PATIENCE_S = 60
"""Time limit for events, threads and processes that come soon or never."""


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Return as soon as `condition()` is true; fails when it is not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)
