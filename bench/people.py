"""People who ask at the same time: a thread for each, all of them off at once."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Answer = TypeVar("Answer")


def together(calls: Sequence[Callable[[], Answer]]) -> tuple[float, list[Answer]]:
    """Seconds from the common start until the last call has returned, and what they returned, in order."""
    start = threading.Barrier(len(calls) + 1)

    def ask(call: Callable[[], Answer]) -> Answer:
        start.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as people:
        asked = [people.submit(ask, call) for call in calls]
        start.wait()
        begun = time.perf_counter()
        answers = [one.result() for one in asked]
        return time.perf_counter() - begun, answers


def percentile(figures: Sequence[float], share: float) -> float:
    """The least figure that at least `share` of them do not exceed."""
    return sorted(figures)[max(0, math.ceil(share * len(figures)) - 1)]
