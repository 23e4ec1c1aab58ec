"""Check that a run fits this machine, suggest changes that make it fit, and recommend bases that suit a tab."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from errors import RunError
from settings import Settings
from tasks import TASKS, TabSpec
from training.config import TrainConfig
from training.estimate.base_shapes import BASES, Base, find_shape
from training.estimate.estimate import Estimate, estimate_run
from training.estimate.lengths import from_limit
from training.estimate.machine import FreeResources
from training.estimate.training_memory import BYTES, HALVED, RunPlan

SHORTER = (4096, 2048, 1024, 512, 256, 128)
"""Longest lengths in tokens that are tried."""
MOST_SUGGESTIONS = 4
ANYWAY = "Or start it all the same: --anyway."
ROWS = 500
"""Rows of the run for which a base is estimated."""
MOST_BASES = 5
"""Limit of recommended bases."""


def gigabytes(size: float) -> str:
    """Format bytes in GB."""
    return f"{size / 1e9:.2f} GB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def check(plan: RunPlan) -> Estimate:
    """Return the estimate of a run; raises `RunError` where it does not fit, unless its configuration says anyway."""
    found = estimate_run(plan)
    if found.fits or plan.config.anyway:
        return found
    raise refusal(plan, found)


def refusal(plan: RunPlan, found: Estimate) -> RunError:
    """Return the error for a run that does not fit, with suggestions."""
    if not found.fits_memory:
        where = "of the GPU" if found.available.gpu else "of memory"
        why = f"It needs {gigabytes(found.peak)} {where}, of which {gigabytes(found.free)} are free."
        return RunError("This run does not fit in memory.", why, " ".join([*suggestions(plan), ANYWAY]))
    why = f"It needs {gigabytes(found.stored)}, of which {gigabytes(found.available.disk)} are free."
    return RunError("This run does not fit on the disk.", why, f"Delete versions, runs or prepared data. {ANYWAY}")


def suggestions(plan: RunPlan) -> list[str]:
    """Return sentences that each name a change which makes the run fit; if none does alone, several changes at once."""
    single = [sentence for text, changed in _single_changes(plan) if (sentence := _suggest(text, changed))]
    if single:
        return single[:MOST_SUGGESTIONS]
    length = min(256, plan.config.max_length)
    saving = _changed(plan, quantize="4bit", micro_batch_tokens=128, gradient_checkpointing="on", max_length=length)
    saving = _changed(saving, evaluations=0, keep_best=False, patience=0)
    text = "Length 256, --micro-batch-tokens 128, --gradient-checkpointing on and --evaluations 0"
    return [_suggest(text, saving) or "Nothing that Graft knows makes it fit: free some memory."]


def _single_changes(plan: RunPlan) -> Iterator[tuple[str, RunPlan]]:
    config = plan.config
    longest = min(config.max_length, plan.rows.longest, plan.shape.window)
    shorter = (_changed(plan, max_length=length) for length in SHORTER if length < longest)
    if fitting := next((one for one in shorter if estimate_run(one).fits_memory), None):
        yield f"Length {fitting.config.max_length:,} instead of {config.max_length:,}", fitting
    if plan.quantize != "4bit":
        yield "--quantize 4bit", _changed(plan, quantize="4bit")
    if config.gradient_checkpointing == "off":
        yield "--gradient-checkpointing on", _changed(plan, gradient_checkpointing="on")
    if plan.budget > longest:
        fewer = max(64, min(longest, plan.budget // 2))
        yield f"--micro-batch-tokens {fewer}", _changed(plan, micro_batch_tokens=fewer)
    if config.evaluations and not (config.keep_best or config.patience):
        yield "--evaluations 0", _changed(plan, evaluations=0)
    answers, most = TASKS[config.task].answers, 0.9 * plan.shape.parameters
    smaller = [base for base in BASES if base.answers == answers and base.shape.parameters < most]
    smaller.sort(key=lambda base: -base.shape.parameters)
    others = (replace(_changed(plan, model=base.id), shape=base.shape) for base in smaller)
    if fitting := next((other for other in others if estimate_run(other).fits_memory), None):
        yield f"{fitting.config.model} instead of {config.model}", fitting


def _changed(plan: RunPlan, **changes: Any) -> RunPlan:  # noqa: ANN401 - fields of the configuration
    return replace(plan, config=replace(plan.config, **changes))


def _suggest(text: str, changed: RunPlan) -> str:
    """Return the sentence that suggests a change; empty where it does not fit."""
    found = estimate_run(changed)
    return f"{text} fits: {gigabytes(found.peak)}." if found.fits_memory else ""


@dataclass(frozen=True)
class Advice:
    """One base for a tab."""

    base: Base
    estimate: Estimate
    """Estimate of a run with the tab's preset on `ROWS` rows of the longest length."""
    serving: int
    """Bytes of the base in memory while it answers, beside the process."""
    here: bool
    """True for a base on this disk."""


def advise(spec: TabSpec, settings: Settings, available: FreeResources, language: str = "") -> list[Advice]:
    """Return the suitable bases that fit this machine, or all suitable ones where none fits, in the table's order.

    `language` is that of the reader, en or zh; bases that do not know it are left out.
    """
    answers = TASKS[spec.task].answers
    suited = [base for base in BASES if base.answers == answers and _knows(base, language)]
    found = [_advise(base, spec, settings, available) for base in suited]
    return ([one for one in found if one.estimate.fits_memory] or found)[:MOST_BASES]


def _knows(base: Base, language: str) -> bool:
    if language.startswith("zh"):
        return base.languages in ("zh", "many") and not base.id.startswith("meta-llama")
    return base.languages in ("en", "many")


def _advise(base: Base, spec: TabSpec, settings: Settings, available: FreeResources) -> Advice:
    tab = TabSpec(spec.name, base.id, spec.task, spec.columns, spec.prompt)
    config = TrainConfig.for_tab(tab, Path("data"), "advice")
    found, here = find_shape(base.id, settings.home)
    shape = found or base.shape
    estimate = estimate_run(RunPlan(config, shape, from_limit(config.max_length, ROWS), 2, available))
    if available.gpu and settings.quantize in ("auto", "4bit"):
        serving = shape.multiplied * BYTES["4bit"] + (shape.parameters - shape.multiplied) * HALVED
    else:
        wide = settings.precision == "float32" or (settings.precision == "auto" and not available.gpu)
        serving = (4 if wide else 2) * shape.parameters
    return Advice(base, estimate, int(serving), here)
