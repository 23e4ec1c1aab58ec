"""Curves of a run for TensorBoard and Trackio, written by accelerate's trackers; both packages are optional.

Trackers read the run's events, so a run does the same with and without them; one that raises is logged and left out
from then on. Nothing leaves the machine: TensorBoard writes files into the run's folder, Trackio a database under the
home, without a Space, a server or a token. A resumed run continues its curves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, TensorBoardTracker, TrackioTracker

from training.config import TENSORBOARD, TRACKERS, TRACKIO, TrainConfig, require_trackers
from training.events import read_events

log = logging.getLogger("graft")

GROUPS = {"step": "train", "eval": "held_out"}
"""Kinds of events with metrics, and the prefixes of their curves."""
NOT_METRICS = ("kind", "at", "step", "steps")


def start_tensorboard(config: TrainConfig, folder: Path, resumed: bool) -> GeneralTracker:
    """Open a new event file in the run's folder (`tensorboard --logdir data/runs`), with the settings once."""
    tracker = TensorBoardTracker(TENSORBOARD, folder)
    tracker.start()
    if not resumed:
        rows = "".join(f"|{key}|{value}|\n" for key, value in _settings(config).items())
        tracker.log({"settings": f"|setting|value|\n|-|-|\n{rows}"})
    return tracker


def start_trackio(config: TrainConfig, folder: Path, resumed: bool) -> GeneralTracker:
    """Begin or resume a run of the local project named as the adapter (`TRACKIO_DIR=data/trackio trackio show`).

    The environment of a run's process says where the database is and holds no token: with one, Trackio would ask the
    Hub about it.
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
    """The trackers of one run, from its begin or resumption until the block ends."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        """Start the configured trackers; raises `ConfigError` where a package is missing."""
        require_trackers(config.track)
        names = TRACKERS[config.track]
        logged = [event for event in read_events(folder) if event.get("kind") in GROUPS] if names else []
        self._last = {kind: max((_step(e) for e in logged if e["kind"] == kind), default=0) for kind in GROUPS}
        self._trackers: dict[str, GeneralTracker] = {}
        if names:
            PartialState()  # the trackers' own logging needs it
        for name in names:
            try:
                self._trackers[name] = START[name](config, folder, bool(logged))
            except Exception:
                log.warning("%s could not be started; the run goes on without it.", name, exc_info=True)

    def log_event(self, event: Mapping[str, Any]) -> None:
        """Log the metrics of a step or an evaluation, but for steps that a resumed run repeats."""
        kind = str(event.get("kind"))
        if not self._trackers or kind not in GROUPS or _step(event) <= self._last[kind]:
            return
        self._last[kind] = _step(event)
        named = {name: value for name, value in event.items() if name not in NOT_METRICS}
        self._log(GROUPS[kind], named, _step(event))

    def log_card(self, card: Mapping[str, Any]) -> None:
        """Log the card's metrics of each contender at the last step."""
        for who in ("base", "live", "new"):
            self._log(f"card_{who}", card.get(who) or {}, max(self._last.values()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write everything to the disk, however the run ends."""
        self._each(lambda tracker: tracker.finish())
        self._trackers.clear()

    def _log(self, group: str, values: Mapping[str, Any], step: int) -> None:
        numbers = {f"{group}/{name}": float(value) for name, value in values.items() if isinstance(value, int | float)}
        if numbers:
            self._each(lambda tracker: tracker.log(numbers, step=step))

    def _each(self, act: Callable[[GeneralTracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                act(tracker)
            except Exception:
                log.warning("%s failed; the run goes on without it.", name, exc_info=True)
                del self._trackers[name]


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The configuration, without the columns' names."""
    return {key: value for key, value in asdict(config).items() if not isinstance(value, dict)}


def _step(event: Mapping[str, Any]) -> int:
    return int(event.get("step", 0))
