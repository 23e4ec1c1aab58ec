"""The progress of a run and its curves, read from `events.jsonl` incrementally: each byte is parsed once."""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from training.events import EVENTS, NOT_METRICS, parse_event

Point = tuple[int, float]
"""(step, value)."""
POINTS = 600
"""Most points of a curve: about as many as a plot has pixels."""
READERS = 64
"""Runs whose curves are kept in memory."""
EVALUATION = "eval_"
"""Prefix of metrics measured on held-out rows."""
STEPS_TIMED = 20
"""Steps before the remaining time is estimated."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    phase: str = "start"
    step: int = 0
    steps: int = 0
    left_s: float | None = None
    """Seconds of training left, by the pace since the run was last started; None before `STEPS_TIMED` steps."""
    curves: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    """Values by step of each metric: loss, learning_rate, grad_norm, tokens_per_s, memory (bytes) and epoch, and those
    of evaluations as eval_loss and so on; thinned to `POINTS`, with the peaks kept.
    """
    prepared: float | None = None
    """Share of the data that is prepared."""
    estimate: Mapping[str, Any] = field(default_factory=dict)
    """`Estimate.to_dict()` of the run; empty where there is none."""

    @property
    def latest(self) -> Mapping[str, float]:
        """The newest value of each metric."""
        return {name: points[-1][1] for name, points in self.curves.items()}


class Series:
    """The values of a metric by step; adding an earlier step again, after a checkpoint, replaces all from there on."""

    def __init__(self) -> None:
        self._steps, self._values = array("q"), array("d")

    def add(self, step: int, value: float) -> None:
        """Append a value."""
        if self._steps and step <= self._steps[-1]:
            start = bisect_left(self._steps, step)
            del self._steps[start:], self._values[start:]
        self._steps.append(step)
        self._values.append(value)

    def points(self, most: int = POINTS) -> list[Point]:
        """Return all points, or the lowest and the highest of each of `most` / 2 intervals, and the newest."""
        steps, values = self._steps, self._values
        if len(steps) <= most:
            return list(zip(steps, values, strict=True))
        chosen, length = {len(steps) - 1}, math.ceil(2 * len(steps) / most)
        for start in range(0, len(steps), length):
            part = values[start : start + length]
            chosen |= {start + part.index(min(part)), start + part.index(max(part))}
        return [(steps[i], values[i]) for i in sorted(chosen)]


class EventReader:
    """Reads the events of a run, each time from where the last read ended."""

    def __init__(self, folder: Path) -> None:
        self._path, self._offset = folder / EVENTS, 0
        self._lock = threading.Lock()
        self._progress = Progress()
        self._values: dict[str, Any] = {"step": 0, "steps": 0}
        """Values of the fields of `Progress`, apart from those that are computed."""
        self._series: dict[str, Series] = {}
        self._first: Point | None = None
        """Step and time of the first step since the training phase began."""
        self._last_at = 0.0

    def read(self) -> Progress:
        """Return the progress by all events so far."""
        with self._lock:
            if self._read_new():
                curves = {name: series.points() for name, series in self._series.items()}
                self._progress = Progress(**self._values, left_s=self._left(), curves=curves)
            return self._progress

    def _read_new(self) -> bool:
        """Parse the lines that were appended, up to an incomplete one; returns whether there were any."""
        before = self._offset
        with suppress(FileNotFoundError), self._path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._offset += len(line)
                self._add(parse_event(line))
        return self._offset > before

    def _add(self, event: Mapping[str, Any]) -> None:
        """Update values and curves by an event; unknown kinds and damaged values are ignored."""
        try:
            kind = event.get("kind")
            if kind == "phase":
                self._values["phase"], self._first = str(event["phase"]), None
            elif kind == "prepare":
                self._values["prepared"] = float(event["part"])
            elif kind == "estimate":
                self._values["estimate"] = event
            elif kind in ("step", "eval"):
                self._add_metrics(event, EVALUATION if kind == "eval" else "")
        except (ValueError, TypeError, KeyError):
            return

    def _add_metrics(self, event: Mapping[str, Any], prefix: str) -> None:
        step, at = int(event["step"]), float(event["at"])
        if not prefix:
            if self._first is None or step <= self._values["step"]:
                self._first = (step, at)
            self._values |= {"step": step, "steps": int(event["steps"])}
            self._last_at = at
        for name, value in event.items():
            if name not in NOT_METRICS and isinstance(value, int | float) and math.isfinite(value):
                self._series.setdefault(prefix + name, Series()).add(step, float(value))

    def _left(self) -> float | None:
        step, steps = self._values["step"], self._values["steps"]
        if self._first is None or step - self._first[0] + 1 < STEPS_TIMED:
            return None
        first, began = self._first
        return float((self._last_at - began) / (step - first) * (steps - step))


@lru_cache(maxsize=READERS)
def _reader(folder: Path, inode: int) -> EventReader:
    return EventReader(folder)


def progress_of(folder: Path) -> Progress:
    """Return the progress of the run in a folder."""
    inode = 0
    with suppress(OSError):
        inode = (folder / EVENTS).stat().st_ino  # another one after the folder was restored from a copy
    return _reader(folder, inode).read()
