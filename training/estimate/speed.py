"""How fast this machine trains: as earlier runs on it were, or as a layer that was timed on it once.

An earlier run counts by what it computed and how long that took, so that other lengths and other steps follow from it.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from settings import REPOSITORY, child_environment
from store import files
from training.estimate.training_memory import Work
from training.events import RESULT

CACHE = "speed.json"
CALIBRATION = (sys.executable, "-m", "training.estimate.calibration")
CALIBRATION_S = 180
"""Seconds after which a machine is too busy to be timed."""
GUESSED = 30e9
"""Operations a second of a core that was never timed."""
START_S = 12.0
"""Seconds of a process until it reads rows: its libraries, mostly."""
REMEMBERED = 40
"""Runs, the newest, that are looked at."""
ALIKE = 5
"""Runs of which the middle one is taken."""


@dataclass(frozen=True)
class Pace:
    """Operations a second while learning and for the card, and the seconds of a start."""

    train: float
    evaluate: float
    start_s: float
    by: Literal["runs", "timed", "guess"]
    """Whether earlier runs say so, a layer that was timed, or nothing yet."""
    runs: int = 0
    """How many earlier runs."""

    @property
    def measured(self) -> bool:
        """Whether it is of runs with the same base held the same way."""
        return self.by == "runs"


def pace(home: Path, base: str, work: Work) -> Pace:
    """The best that is known of this machine."""
    like = [run for run in _history(home) if run["key"] == key_of(base, work)][:ALIKE]
    timed = read(home)
    if like:
        train, card, start = (statistics.median(run[name] for run in like) for name in ("train", "evaluate", "start_s"))
        return Pace(train, card, start, "runs", len(like))
    known = speed_at(timed, work.shape.width) if timed else GUESSED * (os.cpu_count() or 1)
    starts = [run["start_s"] for run in _history(home)[:ALIKE]]
    start = statistics.median(starts) if starts else START_S
    return Pace(known, known, start, "timed" if timed else "guess")


def key_of(base: str, work: Work) -> str:
    """What runs must have in common to be as fast as each other."""
    return f"{base} {work.quantize} {work.half} {work.checkpointing} {identity()}"


def speed_at(timed: Mapping[str, float], width: int) -> float:
    """Operations a second of layers of that width: between the widths that were timed."""
    known = sorted((int(name), value) for name, value in timed.items())
    if width <= known[0][0]:
        return known[0][1]
    for (low, slow), (high, fast) in pairwise(known):
        if width <= high:
            return slow + (fast - slow) * (width - low) / (high - low)
    return known[-1][1]


def read(home: Path) -> dict[str, float]:
    """What was timed on this machine; empty where nothing was, or on another one."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = files.read_json(home / CACHE)
        if found["machine"] == identity():
            return {str(name): float(value) for name, value in found["speed"].items()}
    return {}


def keep(home: Path, speed: Mapping[str, float]) -> None:
    """Remember what was timed."""
    home.mkdir(parents=True, exist_ok=True)
    files.write_json(home / CACHE, {"machine": identity(), "speed": dict(speed)})


def calibrate(home: Path) -> bool:
    """Time a layer in a process of its own, if that was not done yet; whether it is known now."""
    if read(home):
        return True
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        child = subprocess.run(CALIBRATION, cwd=REPOSITORY, env=child_environment(), stdin=subprocess.DEVNULL,
                               capture_output=True, text=True, timeout=CALIBRATION_S)  # fmt: skip
        keep(home, json.loads(child.stdout.splitlines()[-1]))
    return bool(read(home))


@lru_cache(maxsize=1)
def identity() -> str:
    """This machine, as far as its speed follows from it."""
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name} x{len(os.sched_getaffinity(0))}"


def _history(home: Path) -> list[dict[str, Any]]:
    """What the newest runs on this home measured, newest first."""
    folders = sorted((home / "runs").glob("[!.]*"), reverse=True)[:REMEMBERED]
    found = ((folder / RESULT) for folder in folders)
    paths = [(path, path.stat().st_mtime_ns) for path in found if path.exists()]
    return [run for path, stamp in paths if (run := _measured(path, stamp))]


@lru_cache(maxsize=256)
def _measured(path: Path, stamp: int) -> dict[str, Any] | None:
    """Operations a second of a run that has ended, by its own account."""
    with suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
        result = files.read_json(path)
        expected, took = result["estimate"], result["measured"]
        share = took["tokens"] / expected["tokens"]
        return {
            "key": expected["key"],
            "train": share * expected["operations"]["train"] / took["seconds"]["train"],
            "evaluate": expected["operations"]["evaluate"] / took["seconds"]["evaluate"],
            "start_s": max(1.0, took["seconds"]["start"] - expected["prepare_s"]),
        }
    return None
