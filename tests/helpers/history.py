"""A record of calls and changes of the live version, and a checker that each answer is its version's.

An answer is right when it equals the golden answer of the version it names, made beforehand and alone, and when it
names the right version: the one asked for, or one that was live at some moment of the call. Calls and changes overlap,
so the record keeps when each began and ended, and whatever could have been so is right.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bench.bench_tab import same_answer
from store.adapters import BASE, LIVE


@dataclass(frozen=True)
class Call:
    """One answered call; times in seconds of one clock."""

    asked: str
    text: str
    version: str
    said: Any
    began: float
    ended: float


@dataclass
class Change:
    """A change of the live version, made at some moment between `began` and `ended`."""

    ref: str
    began: float
    ended: float = math.inf


@dataclass
class History:
    """Calls and changes as they happen, from any thread."""

    golden: Mapping[tuple[str, str], Any]
    """(source, text) -> answer of every version made from that source."""
    made_from: dict[str, str] = field(default_factory=lambda: {BASE: BASE})
    """Version -> source."""
    calls: list[Call] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=lambda: [Change(BASE, -math.inf, -math.inf)])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, asked: str, text: str, version: str, said: Any, began: float) -> None:
        """Record an answer that ended now."""
        with self._lock:
            self.calls.append(Call(asked, text, version, said, began, time.monotonic()))

    def failed(self, asked: str, error: BaseException) -> None:
        """Record a call without an answer."""
        with self._lock:
            self.errors.append(f"{asked}: {error!r}")

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """Record a change while it is made; the block sets its `ref`. One at a time."""
        change = Change("", time.monotonic())
        yield change
        change.ended = time.monotonic()
        with self._lock:
            self.changes.append(change)

    def faults(self) -> list[str]:
        """Describe every error and wrong answer, a sentence each."""
        return [*self.errors, *(fault for call in self.calls if (fault := self._fault(call)))]

    def _fault(self, call: Call) -> str:
        if call.asked != LIVE and call.version != call.asked:
            return f"{call.asked} was asked and {call.version} answered."
        if call.asked == LIVE and not self._was_live(call):
            return f"{call.version} answered as the live version and was not live."
        source = self.made_from.get(call.version)
        if source is None or not same_answer(call.said, self.golden[source, call.text]):
            golden = self.golden.items()
            whose = [ref for (ref, text), said in golden if text == call.text and same_answer(call.said, said)]
            return f"{call.version} answered {call.said!r} to {call.text!r}, as {' and '.join(whose) or 'none'} does."
        return ""

    def _was_live(self, call: Call) -> bool:
        until = [*(change.ended for change in self.changes[1:]), math.inf]
        return any(
            change.ref == call.version and change.began <= call.ended and call.began <= end
            for change, end in zip(self.changes, until, strict=True)
        )
