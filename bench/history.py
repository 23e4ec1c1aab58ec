"""Whether every answer was the right one: a record of what was asked, answered and moved, and the checker of it.

An answer is right when it is what the version that it names says to that text (the golden answer, made beforehand and
alone), and when it names the right version: the one that was asked for, or one that was live at some moment of the
call. Calls and moves overlap, so the record keeps when each began and ended, and what could have been so is right.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from store.adapters import BASE, LIVE

TOLERANCE = 1e-4
"""Of a probability: a batch adds up in another order."""


@dataclass(frozen=True)
class Answer:
    """One call: what it asked for, which version it named, and what that said; times in seconds of one clock."""

    asked: str
    text: str
    version: str
    said: Any
    began: float
    ended: float


@dataclass
class Move:
    """What a tab answers with from some moment between `began` and `ended` on."""

    ref: str
    began: float
    ended: float = math.inf


@dataclass
class History:
    """Answers and moves as they happen, from any thread; `made_from` tells which golden answers a version has."""

    golden: Mapping[tuple[str, str], Any]
    """(source, text) -> what every version made from that source says."""
    made_from: dict[str, str] = field(default_factory=lambda: {BASE: BASE})
    answers: list[Answer] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    moves: list[Move] = field(default_factory=lambda: [Move(BASE, -math.inf, -math.inf)])
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, asked: str, text: str, version: str, said: Any, began: float) -> None:  # noqa: ANN401
        """Note an answer that ended now."""
        with self._lock:
            self.answers.append(Answer(asked, text, version, said, began, time.monotonic()))

    def failed(self, asked: str, error: BaseException) -> None:
        """Note a call that was not answered."""
        with self._lock:
            self.errors.append(f"{asked}: {error!r}")

    @contextmanager
    def moving(self) -> Iterator[Move]:
        """A move while it is made; whoever makes it sets its `ref`. One at a time."""
        move = Move("", time.monotonic())
        yield move
        move.ended = time.monotonic()
        with self._lock:
            self.moves.append(move)

    def faults(self) -> list[str]:
        """What was wrong, a sentence each; empty where nothing was."""
        return [*self.errors, *(fault for answer in self.answers if (fault := self._fault(answer)))]

    def _fault(self, answer: Answer) -> str:
        if answer.asked != LIVE and answer.version != answer.asked:
            return f"{answer.asked} was asked and {answer.version} answered."
        if answer.asked == LIVE and not self._was_live(answer):
            return f"{answer.version} answered as the live version and was not live."
        source = self.made_from.get(answer.version)
        if source is None or not same(answer.said, self.golden[source, answer.text]):
            whose = " and ".join(self._sources(answer)) or "none"
            return f"{answer.version} answered {answer.said!r} to {answer.text!r}, as {whose} does."
        return ""

    def _sources(self, answer: Answer) -> list[str]:
        """Whose answer it is."""
        return [ref for (ref, text), said in self.golden.items() if text == answer.text and same(answer.said, said)]

    def _was_live(self, answer: Answer) -> bool:
        until = [*(move.ended for move in self.moves[1:]), math.inf]
        return any(
            move.ref == answer.version and move.began <= answer.ended and answer.began <= end
            for move, end in zip(self.moves, until, strict=True)
        )


def same(said: Any, golden: Any) -> bool:  # noqa: ANN401
    """Equal texts, or the same labels with the same probabilities."""
    if not isinstance(golden, Mapping):
        return bool(said == golden)
    return set(said) == set(golden) and all(abs(said[label] - golden[label]) <= TOLERANCE for label in golden)
