"""How far a run is, and its curves, from `events.jsonl`: each byte is read once, however often a page asks."""

from __future__ import annotations

import json
import math
import threading
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.events import EVENTS

Point = tuple[int, float]
"""(step, value)."""
POINTS = 600
"""Points of a curve, at most: about as many as a plot has pixels."""
KEPT = 64
"""Runs whose curves are kept in memory."""
CHUNK = 1 << 22
"""Bytes that are read at a time."""
EVALUATION = "eval_"
"""What the names of figures measured on held-out rows begin with."""
NOT_FIGURES = ("kind", "at", "step", "steps")
STEPS_TIMED = 20
"""Steps before the time that is left is told."""


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    `latest` has the last value of each figure that its steps report: loss, learning_rate, grad_norm, tokens_per_s,
    memory (bytes), epoch, and those of evaluations as eval_loss and so on. `curves` has all their values by step,
    thinned to `POINTS` in a way that keeps peaks.
    `prepared` is the share of the data that is ready, `left_s` the seconds of training that are left, by the pace since
    it went on; None before `STEPS_TIMED` steps.
    """

    phase: str = "start"
    step: int = 0
    steps: int = 0
    left_s: float | None = None
    latest: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    prepared: float | None = None
    estimate: Mapping[str, Any] = field(default_factory=dict)
    """What the run was expected to need, as `training.estimate.estimate` tells it; empty where it was not estimated."""


class Series:
    """One figure by step. A step that comes again, after a resumed checkpoint, takes the place of all from there on."""

    def __init__(self) -> None:
        self._steps, self._values = array("q"), array("d")

    def add(self, step: int, value: float) -> None:
        """Put a value at the end."""
        if self._steps and step <= self._steps[-1]:
            start = bisect_left(self._steps, step)
            del self._steps[start:], self._values[start:]
        self._steps.append(step)
        self._values.append(value)

    @property
    def last(self) -> float:
        """The newest value."""
        return self._values[-1]

    def points(self, most: int = POINTS) -> list[Point]:
        """All points, or the lowest and the highest of each of `most` / 2 stretches, and the newest."""
        steps, values = self._steps, self._values
        if len(steps) <= most:
            return list(zip(steps, values, strict=True))
        found, length = set[int](), math.ceil(2 * len(steps) / most)
        for start in range(0, len(steps), length):
            part = values[start : start + length]
            found |= {start + part.index(min(part)), start + part.index(max(part))}
        found.add(len(steps) - 1)
        return [(steps[i], values[i]) for i in sorted(found)]


class Events:
    """The reading end of a run's events: goes on where it stopped, and leaves half a line for the next time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._begin()

    def read(self) -> Progress:
        """What all events so far say."""
        with self._lock:
            if self._take() or self._progress is None:
                self._progress = self._sum_up()
            return self._progress

    def _begin(self) -> None:
        self._offset, self._file = 0, 0
        self._phase, self._step, self._steps = "start", 0, 0
        self._prepared: float | None = None
        self._estimate: Mapping[str, Any] = {}
        self._series: dict[str, Series] = {}
        self._since: tuple[float, int] | None = None
        self._at = 0.0
        self._progress = None

    def _take(self) -> bool:
        """Read what has been appended; whether there was anything."""
        try:
            with self._path.open("rb") as file:
                status = self._path.stat()
                if status.st_size < self._offset or status.st_ino != self._file:
                    self._begin()
                    self._file = status.st_ino
                return self._read(file)
        except FileNotFoundError:
            return False

    def _read(self, file: Any) -> bool:  # noqa: ANN401 - a file of bytes
        file.seek(self._offset)
        rest, taken = b"", False
        while chunk := file.read(CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._offset += len(line) + 1
                self._event(line)
                taken = True
        return taken

    def _event(self, line: bytes) -> None:
        """Take one line in; what a crash has spoiled, and kinds that are not known here, are passed over."""
        try:
            event = json.loads(line)
            kind = event["kind"]
            if kind == "phase":
                self._phase, self._since = str(event["phase"]), None
            elif kind == "prepare":
                self._prepared = float(event["part"])
            elif kind == "estimate":
                self._estimate = event
            elif kind in ("step", "eval"):
                self._figures(event, EVALUATION if kind == "eval" else "")
        except (ValueError, TypeError, KeyError):
            return

    def _figures(self, event: Mapping[str, Any], prefix: str) -> None:
        step, at = int(event["step"]), float(event["at"])
        if not prefix:
            if self._since is None or step <= self._step:
                self._since = (at, step)
            self._step, self._steps, self._at = step, int(event["steps"]), at
        for key, value in event.items():
            if key not in NOT_FIGURES and isinstance(value, int | float) and math.isfinite(value):
                self._series.setdefault(prefix + key, Series()).add(step, float(value))

    def _sum_up(self) -> Progress:
        latest = {key: series.last for key, series in self._series.items()}
        curves = {key: series.points() for key, series in self._series.items()}
        return Progress(
            self._phase, self._step, self._steps, self._left(), latest, curves, self._prepared, self._estimate
        )

    def _left(self) -> float | None:
        if self._since is None or self._step - self._since[1] + 1 < STEPS_TIMED:
            return None
        began, first = self._since
        return (self._at - began) / (self._step - first) * (self._steps - self._step)


_READERS: OrderedDict[Path, Events] = OrderedDict()
_READERS_LOCK = threading.Lock()


def progress_of(folder: Path) -> Progress:
    """How far the run of that folder is; cheap to ask again."""
    with _READERS_LOCK:
        reader = _READERS.setdefault(folder, Events(folder))
        _READERS.move_to_end(folder)
        while len(_READERS) > KEPT:
            _READERS.popitem(last=False)
    return reader.read()
