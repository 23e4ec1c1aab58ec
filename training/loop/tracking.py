"""Logs the metrics of a run to TensorBoard and Trackio through accelerate's trackers; both packages are optional.

Trackers listen to the run's events and do not affect the run; one that raises is logged and not called again. Nothing
leaves the machine: TensorBoard writes files into the run's folder, Trackio a database under the home, without a Space,
a server or a token. A resumed run continues its curves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker

from training.config import TENSORBOARD, TRACKERS, TRACKIO, TrainConfig, require_trackers
from training.events import NOT_METRICS, read_events

log = logging.getLogger("graft")

GROUPS = {"step": "train", "eval": "held_out"}
"""Kinds of events with metrics, and the prefixes of their curves."""


def start_tensorboard(config: TrainConfig, folder: Path, resumed: bool) -> GeneralTracker:
    """Open a new event file in the run's folder (`tensorboard --logdir data/runs`); log the settings of a new run."""
    tracker = TensorBoardTracker(TENSORBOARD, folder)
    tracker.start()
    if not resumed:
        rows = "".join(f"|{key}|{value}|\n" for key, value in _settings(config).items())
        tracker.log({"settings": f"|setting|value|\n|-|-|\n{rows}"})
    return tracker


def start_trackio(config: TrainConfig, folder: Path, resumed: bool) -> GeneralTracker:
    """Begin or resume a run of the local project named as the adapter (`TRACKIO_DIR=data/trackio trackio show`).

    The environment of a run's process names the folder of the database and has no token, with which Trackio would ask
    the Hub.
    """
    local = {"resume": "allow", "embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    tracker = TrackioTracker(config.name, name=folder.name, config=_settings(config), **local)
    tracker.start()
    return tracker


START: dict[str, Callable[[TrainConfig, Path, bool], GeneralTracker]] = {
    TENSORBOARD: start_tensorboard,
    TRACKIO: start_trackio,
}


class Tracking:
    """The trackers of one run, as a context manager."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        """Start the configured trackers; raises `ConfigError` where a package is missing."""
        require_trackers(config.track)
        names = TRACKERS[config.track]
        logged = [event for event in read_events(folder) if event.get("kind") in GROUPS] if names else []
        self._last = {
            kind: max((int(e.get("step", 0)) for e in logged if e["kind"] == kind), default=0) for kind in GROUPS
        }
        self._trackers: dict[str, GeneralTracker] = {}
        if names:
            PartialState()  # the trackers' own logging needs it
        for name in names:
            try:
                self._trackers[name] = START[name](config, folder, bool(logged))
            except Exception:
                log.warning("%s could not be started; the run goes on without it.", name, exc_info=True)

    def log_event(self, event: Mapping[str, Any]) -> None:
        """Log the metrics of a step or an evaluation, unless a resumed run repeats it."""
        kind = event["kind"]
        if kind in GROUPS and event["step"] > self._last[kind]:
            self._last[kind] = event["step"]
            values = {name: value for name, value in event.items() if name not in NOT_METRICS}
            self._log(GROUPS[kind], values, event["step"])

    def log_card(self, card: Mapping[str, Any]) -> None:
        """Log the card's metrics of the base, the live version and the new one at the last step."""
        for model in ("base", "live", "new"):
            self._log(f"card_{model}", card.get(model) or {}, max(self._last.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Write everything to the disk, however the run ends."""
        self._call_each(lambda tracker: tracker.finish())

    def _log(self, group: str, values: Mapping[str, Any], step: int) -> None:
        numbers = {f"{group}/{name}": float(value) for name, value in values.items() if isinstance(value, int | float)}
        if numbers:
            self._call_each(lambda tracker: tracker.log(numbers, step=step))

    def _call_each(self, call: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception:
                log.warning("%s failed; the run goes on without it.", name, exc_info=True)
                del self._trackers[name]


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Return the configuration without the fields that hold names of columns and places."""
    return {key: value for key, value in asdict(config).items() if not isinstance(value, dict)}
