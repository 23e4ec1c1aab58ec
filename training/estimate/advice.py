"""Which bases of the table suit a task, a language and the memory at hand; what each needs is estimated."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from errors import GraftError
from models.resolve import ModelStore
from settings import Settings
from tasks import TASKS, TabSpec
from training.config import TrainConfig
from training.estimate.base_shapes import BASES, Base, Shape, of_model
from training.estimate.estimate import Case, Estimate
from training.estimate.lengths import of_limit
from training.estimate.machine import Room

ROWS = 500
"""Rows of the run that a base is estimated for."""
MOST = 5
"""Bases that are advised, at most."""


@dataclass(frozen=True)
class Advice:
    """One base that was looked at for a tab."""

    base: Base
    estimate: Estimate
    """Of a run with the tab's preset on `ROWS` rows of the longest length."""
    serving: int
    """Bytes of the base in memory while it answers, beside the process."""
    here: bool
    """Whether it is on this disk already."""


def advise(spec: TabSpec, settings: Settings, room: Room, language: str = "", preset: str = "balanced") -> list[Advice]:
    """Bases for a tab that fit this machine, the strongest that suit it first among equals of the table's order.

    `language` is en or zh, as the reader's; where it is Chinese, bases that know none are left out.
    """
    answers = TASKS[spec.task].answers
    suited = [base for base in BASES if base.answers == answers and suits(base, language)]
    found = [_advice(base, spec, settings, room, preset) for base in suited]
    fitting = [one for one in found if one.estimate.fits_memory]
    return (fitting or found)[:MOST]


def suits(base: Base, language: str) -> bool:
    """Whether a base knows a language."""
    if language.startswith("zh"):
        return base.languages in ("zh", "many") and not base.id.startswith("meta-llama")
    return base.languages in ("en", "many")


def _advice(base: Base, spec: TabSpec, settings: Settings, room: Room, preset: str) -> Advice:
    tab = TabSpec(spec.name, base.id, spec.task, spec.columns, spec.prompt)
    config = TrainConfig.for_tab(tab, Path("data"), "advice", preset)
    shape, here = shape_of(base, settings)
    found = Case(config, shape, of_limit(config.max_length, ROWS), 2, room, settings.home).estimate()
    quantized = room.gpu and settings.quantize in ("auto", "4bit")
    wide = settings.precision == "float32" or (settings.precision == "auto" and not room.gpu)
    whole = (4 if wide else 2) * shape.parameters
    serving = shape.multiplied * 0.53 + (shape.parameters - shape.multiplied) * 2 if quantized else whole
    return Advice(base, found, int(serving), here)


def shape_of(base: Base, settings: Settings) -> tuple[Shape, bool]:
    """The shape of a base of the table, and whether it is on this disk."""
    try:
        model = ModelStore(settings.home / "models", offline=True).resolve(base.id)
    except GraftError:
        return base.shape, False
    return of_model(model) or base.shape, True
