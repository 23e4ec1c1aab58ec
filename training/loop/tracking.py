"""A run's figures for the tools that people look at runs with: TensorBoard's event files and Trackio, both optional.

A tracker reads what the run tells in its events, so a run does the same with one as without; one that fails says so in
the log and is left out from then on. Nothing leaves the machine: TensorBoard is files in the run's folder, Trackio a
database under the home, told of no Space, no server and no token. A resumed run goes on in the same curves.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from errors import ConfigError
from training.config import TRACKERS, TrainConfig
from training.events import read_events

log = logging.getLogger("graft")

TENSORBOARD = "tensorboard"
"""In a run's folder: TensorBoard's event files."""
TRACKIO = "trackio"
"""In the home: Trackio's databases, one for each adapter's name."""
GROUPS = {"step": "train", "eval": "held_out"}
"""Kinds of events that hold figures, and what the figures' names begin with."""
NOT_FIGURES = ("kind", "at", "step", "steps")


class Tracker(Protocol):
    """What writes figures somewhere."""

    def figures(self, values: Mapping[str, float], step: int, at: float) -> None:
        """Write down figures of a step, by name; `at` in Unix seconds."""

    def close(self) -> None:
        """See to it that everything is on the disk."""


class TensorBoard:
    """Event files in a run's folder: `tensorboard --logdir data/runs`."""

    def __init__(self, config: TrainConfig, folder: Path, began: bool) -> None:
        """Open a new file beside those of earlier stretches of the run; the configuration is told once."""
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - optional

        self._writer = SummaryWriter(str(folder / TENSORBOARD))
        if not began:
            rows = "".join(f"|{key}|{value}|\n" for key, value in _settings(config).items())
            self._writer.add_text("settings", f"|setting|value|\n|-|-|\n{rows}")

    def figures(self, values: Mapping[str, float], step: int, at: float) -> None:
        """A scalar each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step, at)
        self._writer.flush()  # a run that is killed is not to lose what its events have

    def close(self) -> None:
        """Write what waits."""
        self._writer.close()


class Trackio:
    """A local Trackio project, named as the adapter, with a run in it: `TRACKIO_DIR=data/trackio trackio show`."""

    def __init__(self, config: TrainConfig, folder: Path, began: bool) -> None:
        """Begin the run, or go on with the one that has the folder's name.

        Where its files are is said by the environment that a run's process is given, which has no token either: with
        one, Trackio would ask the Hub whose it is.
        """
        import trackio  # noqa: PLC0415 - optional

        self._run = trackio.init(
            config.name, name=folder.name, config=_settings(config), resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip

    def figures(self, values: Mapping[str, float], step: int, at: float) -> None:
        """One row of its table."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Wait for its thread, which writes to the database."""
        self._run.finish()


KINDS: Mapping[str, Callable[[TrainConfig, Path, bool], Tracker]] = {"tensorboard": TensorBoard, "trackio": Trackio}
"""By the names of their packages."""


def chosen(track: str) -> Sequence[str]:
    """The packages that a setting of `track` asks for."""
    return TRACKERS[track]


def require(track: str) -> None:
    """Raise `ConfigError` where a package is not installed that `track` asks for; cheap, and imports none of them."""
    missing = [name for name in chosen(track) if importlib.util.find_spec(name) is None]
    if missing:
        names = " and ".join(missing)
        raise ConfigError(
            "track",
            [f"It is {track!r}, and the package {names} is not installed; Graft needs it for nothing else."],
            f"Run: pip install {' '.join(missing)}. Or leave tracking out.",
        )


class Tracking:
    """What a run's events go to besides its folder; made where the run begins or goes on."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        """Open what the configuration asks for; what an earlier stretch of the run has told is not told again.

        Raises `ConfigError` where a package is missing.
        """
        require(config.track)
        told = [event for event in read_events(folder) if event.get("kind") in GROUPS] if chosen(config.track) else []
        self._last = {kind: max((_step(e) for e in told if e["kind"] == kind), default=0) for kind in GROUPS}
        self._trackers: list[Tracker] = []
        for name in chosen(config.track):
            try:
                self._trackers.append(KINDS[name](config, folder, bool(told)))
            except Exception:
                log.warning("%s could not be begun; the run goes on without it.", name, exc_info=True)

    def see(self, event: Mapping[str, Any]) -> None:
        """Take one event in: the figures of a step or of an evaluation. Steps that a resumed run repeats are known."""
        kind = str(event.get("kind"))
        if not self._trackers or kind not in GROUPS or _step(event) <= self._last[kind]:
            return
        self._last[kind] = _step(event)
        values = {f"{GROUPS[kind]}/{name}": float(value) for name, value in event.items()
                  if name not in NOT_FIGURES and isinstance(value, int | float)}  # fmt: skip
        self._tell(values, _step(event), float(event["at"]))

    def card(self, card: Mapping[str, Any], at: float) -> None:
        """The final figures, of each contender, at the last step."""
        values = {f"card_{who}/{name}": float(value) for who in ("base", "live", "new")
                  for name, value in (card.get(who) or {}).items() if isinstance(value, int | float)}  # fmt: skip
        self._tell(values, max(self._last.values()), at)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what waits, however the run ends."""
        self._each(lambda tracker: tracker.close())
        self._trackers.clear()

    def _tell(self, values: Mapping[str, float], step: int, at: float) -> None:
        self._each(lambda tracker: tracker.figures(values, step, at))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        """Let each tracker do something; one that cannot is left out from then on."""
        for tracker in list(self._trackers):
            try:
                act(tracker)
            except Exception:
                log.warning("%s failed; the run goes on without it.", type(tracker).__name__, exc_info=True)
                self._trackers.remove(tracker)


def _settings(config: TrainConfig) -> dict[str, Any]:
    """The configuration, without the columns' names."""
    return {key: value for key, value in asdict(config).items() if not isinstance(value, dict)}


def _step(event: Mapping[str, Any]) -> int:
    return int(event.get("step", 0))
