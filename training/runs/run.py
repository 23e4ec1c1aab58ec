"""A run as read from its folder, whose files alone decide its state.

| state | files and process |
|---|---|
| running | its process lives, and there is no result, or a file `queued` that is not removed yet |
| queued | a file `queued`, and no process |
| cancelled | a file `cancel`, and no result that says done |
| done, failed, paused, interrupted | as `result.json` says |
| interrupted | neither a result nor a process |

    queued -> running -> done | failed | cancelled | interrupted | paused
    paused, interrupted -> queued (resume);  queued, paused -> cancelled

Each change of state writes or removes one file, so a crash leaves the state before or the one after.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from errors import ConfigError, GraftError, RunError
from store import files
from training.config import TrainConfig
from training.data.files.formats import title
from training.events import CANCEL, CHECKPOINTS, CONFIG, CORRECTIONS, EVENTS, LOG, PAUSE, PROCESS, QUEUED, RESULT
from training.runs import run_process
from training.runs.run_progress import Progress, progress_of

State = Literal["queued", "running", "paused", "done", "failed", "cancelled", "interrupted"]
Verb = Literal["pause", "resume", "cancel", "delete"]
STATES: tuple[State, ...] = get_args(State)
OWN_ENDS: tuple[State, ...] = ("paused", "done", "failed")
"""States of results that the process of the run wrote."""
ENDS: tuple[State, ...] = (*OWN_ENDS, "cancelled", "interrupted")
"""States of all results; the last two are written by the process that cancels a run or finds it ended."""
MAY: Mapping[Verb, tuple[State, ...]] = {
    "pause": ("running",),
    "resume": ("paused", "interrupted"),
    "cancel": ("queued", "running", "paused"),
    "delete": ("queued", "paused", "done", "failed", "cancelled", "interrupted"),
}
"""The states in which a run can be paused, resumed and so on."""
PARTICIPLES: Mapping[Verb, str] = dict(zip(MAY, ("paused", "resumed", "cancelled", "deleted"), strict=True))
LOG_LINES = 12
LOG_BYTES = 20_000


@dataclass(frozen=True)
class Run:
    """A snapshot of a run; times are in Unix seconds."""

    id: str
    folder: Path
    state: State
    name: str
    """Name of the adapter."""
    plugin: str
    """Name of the tab."""
    data: str
    """Name of the file of rows."""
    created: float
    queued: float
    started: float | None
    """Time of the last start of its process."""
    ended: float | None
    seconds: float
    """Seconds that it ran before `started`."""
    version: str | None
    metric: str | None
    """The main metric of its card."""
    figure: float | None
    """Value of `metric` for the new version."""
    place: int = 0
    """Position in the queue, from 1; 0 outside it."""

    @property
    def active(self) -> bool:
        """True while its state can change without a user's action."""
        return self.state in ("queued", "running")

    @property
    def config(self) -> TrainConfig:
        """The configuration, read from its folder; raises `GraftError` where that is invalid or gone."""
        return read_config(self.folder)

    @property
    def result(self) -> dict[str, Any]:
        """The content of `result.json`, with the end of the log where it failed; empty while the run is active."""
        if self.active:
            return {}
        if self.state == "cancelled":
            return {"state": "cancelled"}
        result = read_result(self.folder)
        return {**result, "log": self.log_tail()} if self.state in ("failed", "interrupted") else result

    @property
    def error(self) -> RunError:
        """The error of a run that failed, by its result."""
        return RunError(*(str(self.result.get(part) or "") for part in ("what", "why", "next")))

    @property
    def progress(self) -> Progress:
        """The progress by the events so far."""
        return progress_of(self.folder)

    @property
    def teaches(self) -> bool:
        """True for a run that trains on corrections."""
        return (self.folder / CORRECTIONS).is_dir()

    @property
    def resumable(self) -> bool:
        """True where there is a checkpoint; without one a resumed run starts from the beginning."""
        return any(self.folder.glob(CHECKPOINTS))

    @property
    def pausing(self) -> bool:
        """True between the request to pause and the pause."""
        return self.state == "running" and (self.folder / PAUSE).exists()

    @property
    def duration(self) -> float:
        """Seconds that it has run, all starts together."""
        if self.started is None:
            return self.seconds
        return self.seconds + max(0.0, (self.ended if self.ended is not None else time.time()) - self.started)

    def may(self, verb: Verb) -> bool:
        """Return whether the run can be paused, resumed and so on now."""
        return self.state in MAY[verb] and not (verb == "pause" and self.pausing)

    def require(self, verb: Verb) -> None:
        """Raise `RunError` where the state of the run does not allow `verb`."""
        if self.state not in MAY[verb]:
            why = f"Only one that is {' or '.join(MAY[verb])} can be {PARTICIPLES[verb]}."
            raise RunError(f"The run {self.id} is {self.state}.", why)

    def log_tail(self, lines: int = LOG_LINES) -> list[str]:
        """Return the last lines of its process's output that are not blank."""
        try:
            with (self.folder / LOG).open("rb") as file:
                file.seek(max(0, (self.folder / LOG).stat().st_size - LOG_BYTES))
                text = file.read().decode("utf-8", "replace").replace("\r", "\n")
        except FileNotFoundError:
            return []
        return [line for line in text.split("\n") if line.strip()][-lines:]


def read_run(folder: Path) -> Run | None:
    """Read the run in a folder; returns None for a folder without a valid configuration."""
    try:
        config, created = read_config(folder), (folder / CONFIG).stat().st_mtime
    except (GraftError, OSError):
        return None
    state, result, process = read_state(folder), read_result(folder), run_process.read_record(folder)
    card = result.get("card") or {}
    metric = card.get("metric")
    return Run(
        id=folder.name,
        folder=folder,
        state=state,
        name=config.name,
        plugin=config.plugin,
        data=title(Path(config.data or config.corrections)),
        created=created,
        queued=_queued(folder) or created,
        started=process.started,
        ended=None if state == "running" else _ended(folder, state),
        seconds=process.seconds,
        version=result.get("version"),
        metric=metric,
        figure=(card.get("new") or {}).get(metric),
    )


def read_state(folder: Path) -> State:
    """Read the state of the run in a folder."""
    result = read_result(folder)
    if (folder / QUEUED).exists():
        # With a process: whoever started it was killed before it removed the file.
        return "running" if run_process.alive(folder) else "queued"
    if not result:
        if run_process.alive(folder):
            return "running"
        result = read_result(folder)  # the run may have ended between the two checks
    state: State = result.get("state", "interrupted")
    # A process that is ended by a signal may report a failure.
    return "cancelled" if (folder / CANCEL).exists() and state != "done" else state


def read_config(folder: Path) -> TrainConfig:
    """Read the configuration in a run's folder; raises `GraftError`."""
    try:
        return TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError("The training configuration", [f"It cannot be read: {type(error).__name__}."]) from error


def read_result(folder: Path) -> dict[str, Any]:
    """Read the result in a run's folder; empty where there is none or it is damaged."""
    try:
        result = files.read_json(folder / RESULT)
    except (OSError, ValueError):
        return {}
    return result if isinstance(result, dict) and result.get("state") in ENDS else {}


def _queued(folder: Path) -> float | None:
    try:
        return float((folder / QUEUED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _ended(folder: Path, state: State) -> float | None:
    """Return the time when a run ended: of its result, or of its last output where another process wrote that later."""
    names = (RESULT,) if state in OWN_ENDS else (PROCESS, EVENTS, LOG)
    return max((at for name in names if (at := _modified(folder / name))), default=None)


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
