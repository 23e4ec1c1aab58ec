"""Names of the files in a run's folder, and its events: JSON lines that the run appends and others read meanwhile."""

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
"""Request to the run to stop at its next step, with a checkpoint and a result that says paused."""
QUEUED = "queued"
"""Mark of a run that waits; contains the time when it was queued, in Unix seconds."""
CANCEL = "cancel"
"""Mark of a cancelled run. It overrides every result but done: a process that is ended may report a failure."""
CORRECTIONS = "corrections"
"""Folder with the corrections of a run that trains on some; other runs have none."""
CHECKPOINTS = "checkpoints/[0-9]*/state.json"
"""Pattern of the file that is written last into a checkpoint."""

NOT_METRICS = ("kind", "at", "step", "steps")
"""Keys that are no metrics in events of steps and evaluations."""
PHASES = ("start", "data", "model", "train", "evaluate", "publish")


class Events:
    """Writes events; used by the run's own process alone."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / EVENTS
        self._listeners: list[Callable[[Mapping[str, Any]], None]] = []

    def listen(self, listener: Callable[[Mapping[str, Any]], None]) -> None:
        """Call `listener` with each further event after it is written."""
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
    """Return all events so far, without damaged lines and without a last line that is not complete yet."""
    try:
        # Bytes, because an incomplete line may end inside a character.
        lines = (folder / EVENTS).read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    return [event for line in lines if (event := parse_event(line))]


def parse_event(line: bytes) -> dict[str, Any]:
    """Return the event in a line; empty for a line that a crash has damaged."""
    try:
        event = json.loads(line)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}
