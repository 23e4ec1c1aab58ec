"""Bases of the table that suit a task, a language and the free memory, each with an estimate of training on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from settings import Settings
from tasks import TASKS, TabSpec
from training.config import TrainConfig
from training.estimate.base_shapes import BASES, Base, find_shape
from training.estimate.estimate import Estimate, RunPlan
from training.estimate.lengths import of_limit
from training.estimate.machine import FreeResources
from training.estimate.training_memory import BYTES, HALVED

ROWS = 500
"""Rows of the run that a base is estimated for."""
MOST = 5
"""Bases that are advised, at most."""


@dataclass(frozen=True)
class Advice:
    """One base for a tab."""

    base: Base
    estimate: Estimate
    """Of a run with the tab's preset on `ROWS` rows of the longest length."""
    serving: int
    """Bytes of the base in memory while it answers, beside the process."""
    here: bool
    """Whether it is on this disk already."""


def advise(
    spec: TabSpec, settings: Settings, available: FreeResources, language: str = "", preset: str = "balanced"
) -> list[Advice]:
    """Return the bases for a tab that fit this machine, or where none fits all that suit, in the table's order.

    `language` is en or zh, as the reader's; for Chinese, bases that do not know it are left out.
    """
    answers = TASKS[spec.task].answers
    suited = [base for base in BASES if base.answers == answers and _knows(base, language)]
    found = [_advice(base, spec, settings, available, preset) for base in suited]
    return ([one for one in found if one.estimate.fits_memory] or found)[:MOST]


def _knows(base: Base, language: str) -> bool:
    if language.startswith("zh"):
        return base.languages in ("zh", "many") and not base.id.startswith("meta-llama")
    return base.languages in ("en", "many")


def _advice(base: Base, spec: TabSpec, settings: Settings, available: FreeResources, preset: str) -> Advice:
    tab = TabSpec(spec.name, base.id, spec.task, spec.columns, spec.prompt)
    config = TrainConfig.for_tab(tab, Path("data"), "advice", preset)
    found, here = find_shape(base.id, settings.home)
    shape = found or base.shape
    estimate = RunPlan(config, shape, of_limit(config.max_length, ROWS), 2, available).estimate()
    if available.gpu and settings.quantize in ("auto", "4bit"):
        serving = shape.multiplied * BYTES["4bit"] + (shape.parameters - shape.multiplied) * HALVED
    else:
        wide = settings.precision == "float32" or (settings.precision == "auto" and not available.gpu)
        serving = (4 if wide else 2) * shape.parameters
    return Advice(base, estimate, int(serving), here)
