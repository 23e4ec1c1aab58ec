"""The progress of a run, and its curves, from `events.jsonl`: each byte is read once, however often a page asks."""

from __future__ import annotations

import json
import math
import threading
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.events import EVENTS, NOT_METRICS

Point = tuple[int, float]
"""(step, value)."""
POINTS = 600
"""Points of a curve, at most: about as many as a plot has pixels."""
READERS = 64
"""Runs whose curves are kept in memory."""
CHUNK = 1 << 22
"""Bytes that are read at a time."""
EVALUATION = "eval_"
"""What the names of figures measured on held-out rows begin with."""
STEPS_TIMED = 20
"""Steps before the remaining time is estimated."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run.

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
    """The estimate of its needs, as `training.estimate.estimate` describes it; empty where there is none."""


class Series:
    """Values of one figure by step. A step that comes again, after a checkpoint, replaces all from there on."""

    def __init__(self) -> None:
        self._steps, self._values = array("q"), array("d")

    def add(self, step: int, value: float) -> None:
        """Append a value."""
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
        """Return all points, or the lowest and the highest of each of `most` / 2 stretches, and the newest."""
        steps, values = self._steps, self._values
        if len(steps) <= most:
            return list(zip(steps, values, strict=True))
        found, length = set[int](), math.ceil(2 * len(steps) / most)
        for start in range(0, len(steps), length):
            part = values[start : start + length]
            found |= {start + part.index(min(part)), start + part.index(max(part))}
        found.add(len(steps) - 1)
        return [(steps[i], values[i]) for i in sorted(found)]


class EventReader:
    """Reads the events of a run from where it stopped before; half a line is left for the next time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._reset()

    def read(self) -> Progress:
        """Return the progress by all events so far."""
        with self._lock:
            if self._read_new() or self._progress is None:
                latest = {key: series.last for key, series in self._series.items()}
                curves = {key: series.points() for key, series in self._series.items()}
                self._progress = Progress(**self._facts, left_s=self._left(), latest=latest, curves=curves)
            return self._progress

    def _reset(self) -> None:
        self._offset, self._inode = 0, 0
        self._facts: dict[str, Any] = {"step": 0, "steps": 0}
        self._series: dict[str, Series] = {}
        self._since: tuple[float, int] | None = None
        self._at = 0.0
        self._progress = None

    def _read_new(self) -> bool:
        """Read what has been appended; returns whether there was a whole line."""
        before = self._offset
        try:
            with self._path.open("rb") as file:
                status = self._path.stat()
                if status.st_size < self._offset or status.st_ino != self._inode:
                    self._reset()
                    self._inode, before = status.st_ino, 0
                file.seek(self._offset)
                rest = b""
                while chunk := file.read(CHUNK):
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._offset += len(line) + 1
                        self._add(line)
        except FileNotFoundError:
            return False
        return self._offset > before

    def _add(self, line: bytes) -> None:
        """Take one event in; lines that a crash has spoiled and kinds that are not known here are passed over."""
        try:
            event = json.loads(line)
            kind = event["kind"]
            if kind == "phase":
                self._facts["phase"], self._since = str(event["phase"]), None
            elif kind == "prepare":
                self._facts["prepared"] = float(event["part"])
            elif kind == "estimate":
                self._facts["estimate"] = event
            elif kind in ("step", "eval"):
                self._add_figures(event, EVALUATION if kind == "eval" else "")
        except (ValueError, TypeError, KeyError):
            return

    def _add_figures(self, event: Mapping[str, Any], prefix: str) -> None:
        step, at = int(event["step"]), float(event["at"])
        if not prefix:
            if self._since is None or step <= self._facts["step"]:
                self._since = (at, step)
            self._facts |= {"step": step, "steps": int(event["steps"])}
            self._at = at
        for key, value in event.items():
            if key not in NOT_METRICS and isinstance(value, int | float) and math.isfinite(value):
                self._series.setdefault(prefix + key, Series()).add(step, float(value))

    def _left(self) -> float | None:
        step, steps = self._facts["step"], self._facts["steps"]
        if self._since is None or step - self._since[1] + 1 < STEPS_TIMED:
            return None
        began, first = self._since
        return float((self._at - began) / (step - first) * (steps - step))


@lru_cache(maxsize=READERS)
def _reader(folder: Path) -> EventReader:
    return EventReader(folder)


def progress_of(folder: Path) -> Progress:
    """Return the progress of the run in a folder; cheap to ask again."""
    return _reader(folder).read()
