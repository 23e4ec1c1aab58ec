"""The files of a run's folder, and its events: one JSON object a line, appended to `events.jsonl`, read at any time."""

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
"""Asks a run to stop at its next step, with a checkpoint and a result that says paused."""
QUEUED = "queued"
"""Marks a run that waits its turn; holds when it was queued, in Unix seconds."""
CANCEL = "cancel"
"""Marks a run that was cancelled: unless it is done, whatever else became of it is a consequence."""
CORRECTIONS = "corrections"
"""Folder with the corrections of a run that learns from some; other runs have none."""
CHECKPOINTS = "checkpoints/[0-9]*/state.json"
"""Pattern of the file that is written last into a checkpoint."""

NOT_METRICS = ("kind", "at", "step", "steps")
"""Keys of the events of steps and evaluations that are no metrics."""
PHASES = ("start", "data", "model", "train", "evaluate", "publish")


class Events:
    """Writes events; used by the run's own process alone."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []

    def listen(self, listener: Callable[[Mapping[str, Any]], None]) -> None:
        """Call `listener` with each event from now on, once it is written."""
        self._listeners.append(listener)

    def emit(self, kind: str, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Append one event, flushed to the operating system."""
        event = {"kind": kind, "at": time.time(), **values}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(event, ensure_ascii=False) + "\n")
        for listener in self._listeners:
            listener(event)

    def phase(self, name: str, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Begin a phase, one of `PHASES`."""
        self.emit("phase", phase=name, **values)


def read_events(folder: Path) -> list[dict[str, Any]]:
    """Return every whole event so far; a half-written line is left for the next time, a spoiled one for good."""
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
