"""One run as its row and its folder tell it: its state, how far it is, how it ended, what may be done with it.

queued -> running -> done | failed | cancelled | interrupted | paused
paused, interrupted -> queued (resume);  queued, paused -> cancelled
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from errors import ConfigError, RunError
from store import files
from training.config import TrainConfig
from training.events import CHECKPOINTS, CONFIG, CORRECTIONS, LOG, PAUSE, QUEUED, RESULT
from training.runs.run_progress import Progress, progress_of

State = Literal["queued", "running", "paused", "done", "failed", "cancelled", "interrupted"]
Verb = Literal["pause", "resume", "cancel", "delete"]
STATES: tuple[State, ...] = get_args(State)
ENDS: tuple[State, ...] = ("paused", "done", "failed", "cancelled", "interrupted")
"""States that a running one can go over to, and that a result can name."""
NEXT: Mapping[State, tuple[State, ...]] = {
    "queued": ("running", "cancelled"),
    "running": ENDS,
    "paused": ("queued", "cancelled"),
    "interrupted": ("queued",),
    "done": (),
    "failed": (),
    "cancelled": (),
}
"""The states that may follow each."""
MAY: Mapping[Verb, tuple[State, ...]] = {
    "pause": ("running",),
    "resume": ("paused", "interrupted"),
    "cancel": ("queued", "running", "paused"),
    "delete": ("queued", "paused", "done", "failed", "cancelled", "interrupted"),
}
"""The states in which each thing may be done."""
CAN: Mapping[Verb, str] = {
    "pause": "can be paused", "resume": "can be resumed", "cancel": "can be cancelled", "delete": "can be deleted",
}  # fmt: skip
LOG_LINES = 12
LOG_BYTES = 20_000


@dataclass(frozen=True)
class Run:
    """One run as it was when it was looked up; times in Unix seconds."""

    id: str
    folder: Path
    state: State
    name: str
    """The adapter's."""
    plugin: str
    """The tab that it is for."""
    data: str
    """The name of its file of rows."""
    created: float
    queued: float
    started: float | None
    """When it began, or went on, the last time."""
    ended: float | None
    seconds: float
    """Those that it ran before `started`."""
    version: str | None
    metric: str | None
    figure: float | None
    """The new version's, by the card's metric."""
    place: int = 0
    """In the queue, from 1; 0 outside of it."""

    @classmethod
    def of_row(cls, row: sqlite3.Row, root: Path, place: int = 0) -> Run:
        """A row of the table `runs`."""
        return cls(folder=root / row["id"], place=place, **dict(row))

    @property
    def active(self) -> bool:
        """Whether something will still happen by itself."""
        return self.state in ("queued", "running")

    @property
    def config(self) -> TrainConfig:
        """What it was told; raises `GraftError` where its folder no longer says so."""
        return read_config(self.folder)

    @property
    def result(self) -> dict[str, Any]:
        """What it ended with; empty while it goes on. Where it did not succeed: what, why, next and its last lines."""
        if self.active:
            return {}
        result = read_result(self.folder)
        return {**result, "log": self.log_tail()} if self.state in ("failed", "interrupted") else result

    @property
    def progress(self) -> Progress:
        """How far it is, from its events."""
        return progress_of(self.folder)

    @property
    def teaches(self) -> bool:
        """Whether it learns from corrections."""
        return (self.folder / CORRECTIONS).is_dir()

    @property
    def resumable(self) -> bool:
        """Whether it has a checkpoint to go on from; without one a resumed run begins anew."""
        return any(self.folder.glob(CHECKPOINTS))

    @property
    def pausing(self) -> bool:
        """Whether it was asked to pause and has not done so yet."""
        return self.state == "running" and (self.folder / PAUSE).exists()

    @property
    def duration(self) -> float:
        """Seconds that it has run."""
        if self.started is None:
            return self.seconds
        return self.seconds + max(0.0, (self.ended if self.ended is not None else time.time()) - self.started)

    def may(self, verb: Verb) -> bool:
        """Whether that can be done with it now."""
        return self.state in MAY[verb] and not (verb == "pause" and self.pausing)

    def require(self, verb: Verb) -> None:
        """Raise `RunError` where `verb` cannot be done with it."""
        if self.state not in MAY[verb]:
            states = " or ".join(MAY[verb])
            raise RunError(f"The run {self.id} is {self.state}.", f"Only one that is {states} {CAN[verb]}.")

    def log_tail(self, lines: int = LOG_LINES) -> list[str]:
        """The last lines that its process printed."""
        try:
            with (self.folder / LOG).open("rb") as file:
                file.seek(max(0, (self.folder / LOG).stat().st_size - LOG_BYTES))
                text = file.read().decode("utf-8", "replace").replace("\r", "\n")
        except FileNotFoundError:
            return []
        return [line for line in text.split("\n") if line.strip()][-lines:]


def read_config(folder: Path) -> TrainConfig:
    """The configuration in a run's folder; raises `GraftError`."""
    try:
        return TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError("The training configuration", [f"It cannot be read: {type(error).__name__}."]) from error


def read_result(folder: Path) -> dict[str, Any]:
    """What a run's process has left; empty where there is nothing, or nothing whole."""
    try:
        result = files.read_json(folder / RESULT)
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) and result.get("state") in ENDS else {}


def read_state(folder: Path) -> State:
    """The state that a run's folder alone tells; running also where its process is gone, which is yet to be seen."""
    result = read_result(folder)
    if result:
        return cast(State, result["state"])
    return "queued" if (folder / QUEUED).exists() else "running"
