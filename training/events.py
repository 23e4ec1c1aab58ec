"""What a run tells while it goes on: one JSON object a line, appended to `events.jsonl`, read at any time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EVENTS = "events.jsonl"
RESULT = "result.json"
CONFIG = "config.json"
LOG = "train.log"
PROCESS = "process.json"
PAUSE = "pause"
"""Made in the folder of a run that is to stop at its next step, with a checkpoint and a result that says paused."""
QUEUED = "queued"
"""In the folder of a run that waits its turn: when it was queued, in Unix seconds."""
CANCEL = "cancel"
"""In the folder of a run that was told to end: without a result of its own it was cancelled, not interrupted."""
CORRECTIONS = "corrections"
"""The folder of the corrections that a run was started to teach; other runs have none."""
CHECKPOINTS = "checkpoints/[0-9]*/state.json"
"""What a checkpoint has when it is whole."""

NOT_METRICS = ("kind", "at", "step", "steps")
"""Keys of the events of steps and evaluations that are no metrics."""
PHASES = ("start", "data", "model", "train", "evaluate", "publish")


class Events:
    """The writing end: the run's own process."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []

    def listen(self, listener: Callable[[Mapping[str, Any]], None]) -> None:
        """Let `listener` have each event from now on, once it is written."""
        self._listeners.append(listener)

    def emit(self, kind: str, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Append one event; it is on its way to the disk when this returns."""
        event = {"kind": kind, "at": time.time(), **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
        for listener in self._listeners:
            listener(event)

    def phase(self, name: str, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Begin a phase, one of `PHASES`."""
        self.emit("phase", phase=name, **values)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Every whole event so far; a half-written line is left for the next time, a spoiled one for good."""
    path = folder / EVENTS
    if not path.exists():
        return []
    # Bytes, because the half of a line that is there may end inside a character.
    lines = path.read_bytes().split(b"\n")[:-1]
    return [event for line in lines if (event := _event(line))]


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
