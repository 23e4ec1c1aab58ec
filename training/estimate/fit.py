"""The check that a run fits this machine, with advice where it does not: changes that were estimated to fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from errors import RunError
from tasks import TASKS
from training.config import TrainConfig
from training.data.inspect.report import Report
from training.estimate.base_shapes import BASES
from training.estimate.estimate import Estimate, RunPlan
from training.estimate.lengths import LengthHistogram, of_limit, of_report

SHORTER = (4096, 2048, 1024, 512, 256, 128)
"""Longest lengths in tokens that are tried."""
MOST_ADVICE = 4
ANYWAY = "Or start it all the same: --anyway."


def gigabytes(size: float) -> str:
    """Format bytes as people compare them."""
    return f"{size / 1e9:.2f} GB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def check(plan: RunPlan) -> Estimate:
    """Return the estimate of a run; raises `RunError` with advice where it does not fit and was not told to go on."""
    found = plan.estimate()
    if found.fits or plan.config.anyway:
        return found
    raise refusal(plan, found)


def refusal(plan: RunPlan, found: Estimate) -> RunError:
    """Return the error for a run that does not fit, with advice."""
    if not found.fits_memory:
        where = "of the GPU" if found.available.gpu else "of memory"
        why = f"It needs {gigabytes(found.peak)} {where}, of which {gigabytes(found.free)} are free."
        return RunError("This run does not fit in memory.", why, " ".join([*advised(plan), ANYWAY]))
    why = f"It needs {gigabytes(found.stored)}, of which {gigabytes(found.available.disk)} are free."
    return RunError("This run does not fit on the disk.", why, f"Delete versions, runs or prepared data. {ANYWAY}")


def advised(plan: RunPlan) -> list[str]:
    """Return changes that make the run fit, a sentence each: single ones, or else several together."""
    alone = [advice for text, changed in _single_changes(plan) if (advice := _advice(text, changed))]
    if alone:
        return alone[:MOST_ADVICE]
    text = "Length 256, --micro-batch-tokens 128, --gradient-checkpointing on and --evaluations 0"
    least = _changed(plan, quantize="4bit", micro_batch_tokens=128, gradient_checkpointing="on")
    least = _changed(least, max_length=min(256, plan.config.max_length), evaluations=0, keep_best=False, patience=0)
    together = _advice(text, least)
    return [together] if together else ["Nothing that Graft knows makes it fit: free some memory."]


def _single_changes(plan: RunPlan) -> Iterator[tuple[str, RunPlan]]:
    config = plan.config
    longest = min(config.max_length, plan.lengths.longest, plan.shape.window)
    shorter = (_changed(plan, max_length=length) for length in SHORTER if length < longest)
    if fitting := next((one for one in shorter if one.estimate().fits_memory), None):
        yield f"Length {fitting.config.max_length:,} instead of {config.max_length:,}", fitting
    if plan.quantize != "4bit":
        yield "--quantize 4bit", _changed(plan, quantize="4bit")
    if config.gradient_checkpointing == "off":
        yield "--gradient-checkpointing on", _changed(plan, gradient_checkpointing="on")
    if plan.micro_batch_tokens > longest:
        fewer = max(64, min(longest, plan.micro_batch_tokens // 2))
        yield f"--micro-batch-tokens {fewer}", _changed(plan, micro_batch_tokens=fewer)
    if config.evaluations and not (config.keep_best or config.patience):
        yield "--evaluations 0", _changed(plan, evaluations=0)
    answers, most = TASKS[config.task].answers, 0.9 * plan.shape.parameters
    smaller = [base for base in BASES if base.answers == answers and base.shape.parameters < most]
    for base in sorted(smaller, key=lambda base: -base.shape.parameters):
        other = replace(_changed(plan, model=base.id), shape=base.shape)
        if other.estimate().fits_memory:
            yield f"{base.id} instead of {config.model}", other
            break


def _changed(plan: RunPlan, **changes: Any) -> RunPlan:  # noqa: ANN401 - fields of the configuration
    return replace(plan, config=replace(plan.config, **changes))


def _advice(text: str, changed: RunPlan) -> str:
    """Return the sentence that advises a change, empty where it does not fit."""
    found = changed.estimate()
    return f"{text} fits: {gigabytes(found.peak)}." if found.fits_memory else ""


def lengths_of(config: TrainConfig, report: Report | None) -> tuple[LengthHistogram, int]:
    """Return the lengths of a run's rows and the number of labels, from the report where there is one."""
    if report is None:
        return of_limit(config.max_length, 1_000), 2
    return of_report(report), len(report.labels)
