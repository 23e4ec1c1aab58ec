"""How often somebody may do something: a bucket of tokens for each of them, refilled at an even rate.

The token bucket of traffic shaping (Turner, 1986): `burst` at once, then `per_minute`. Nothing is written down, and of
very many callers those that were quiet longest are forgotten, which only ever gives them a full bucket again.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

MOST_KEYS = 10_000
"""Callers that are remembered at once, so that nobody fills the memory with addresses."""


class Rate:
    """Counts by key: an address, say. Safe for threads."""

    def __init__(self, per_minute: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is a clock in seconds, for tests."""
        self._per_s, self._burst, self._now = per_minute / 60, float(burst), now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, cost: float = 1.0) -> float:
        """Take `cost` tokens of a key's: 0 if it had as many, else none is taken and this many seconds are to wait."""
        with self._lock:
            now = self._now()
            left, at = self._buckets.pop(key, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._per_s)
            missing = max(0.0, min(cost, self._burst) - left)
            self._buckets[key] = (left if missing else left - cost, now)
            while len(self._buckets) > MOST_KEYS:
                self._buckets.popitem(last=False)
        return missing / self._per_s if missing else 0.0

    def give(self, key: str) -> None:
        """Forget what a key has taken."""
        with self._lock:
            self._buckets.pop(key, None)
