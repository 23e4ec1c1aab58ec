"""Whether a run fits this machine, and if not, what would: an advised change is estimated, and said only if it fits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from errors import RunError
from tasks import TASKS
from training.config import TrainConfig
from training.data.inspect.report import Report
from training.estimate import base_shapes, training_memory
from training.estimate.estimate import Case, Estimate
from training.estimate.lengths import Lengths, of_limit, of_report

LENGTHS = (4096, 2048, 1024, 512, 256, 128)
MOST_ADVICE = 4
ANYWAY = "Or start it all the same: --anyway."


def gigabytes(size: float) -> str:
    """Bytes as people compare them."""
    return f"{size / 1e9:.2f} GB" if size < 1e9 else f"{size / 1e9:.1f} GB"


def check(case: Case) -> Estimate:
    """What the run needs; raises `RunError` with advice where that is not free, unless it is to start all the same."""
    found = case.estimate()
    if found.fits or case.config.anyway:
        return found
    raise refusal(case, found)


def refusal(case: Case, found: Estimate) -> RunError:
    """Why a run cannot begin, and what would fit."""
    if not found.fits_memory:
        where = "of the GPU" if found.room.gpu else "of memory"
        why = f"It needs {gigabytes(found.peak)} {where}, of which {gigabytes(found.free)} are free."
        next = " ".join([*advised(case), ANYWAY])
        return RunError("This run does not fit in memory.", why, next)
    why = f"It needs {gigabytes(found.stored)}, of which {gigabytes(found.room.disk)} are free."
    return RunError("This run does not fit on the disk.", why, f"Delete versions, runs or prepared data. {ANYWAY}")


def advised(case: Case) -> list[str]:
    """Changes that make it fit, each by itself, or else all together; a sentence each."""
    alone = [*_alone(case)]
    found = [said for text, changed in alone if (said := _tried(text, changed))]
    if found:
        return found[:MOST_ADVICE]
    changes: dict[str, Any] = {"max_length": min(256, case.config.max_length), "micro_batch_tokens": 128,
                               "gradient_checkpointing": "on", "evaluations": 0, "keep_best": False,
                               "patience": 0}  # fmt: skip
    together = _tried("Length 256, --micro-batch-tokens 128, --gradient-checkpointing on and --evaluations 0",
                      _changed(case, {**changes, "quantize": "4bit"}))  # fmt: skip
    return [together] if together else ["Nothing that Graft knows makes it fit: free some memory."]


def _alone(case: Case) -> Iterator[tuple[str, Case]]:
    config, lengths = case.config, case.lengths
    longest = min(config.max_length, lengths.longest, case.shape.window)
    for length in LENGTHS:
        if length < longest:
            shorter = _changed(case, {"max_length": length})
            if shorter.estimate().fits_memory:
                yield f"Length {length:,} instead of {config.max_length:,}", shorter
                break
    if config.quantize in ("none", "8bit", "auto") and not (config.quantize == "auto" and case.room.gpu):
        yield "--quantize 4bit", _changed(case, {"quantize": "4bit"})
    if config.gradient_checkpointing == "off":
        yield "--gradient-checkpointing on", _changed(case, {"gradient_checkpointing": "on"})
    budget = config.micro_batch_tokens or training_memory.micro_batch_tokens(case.room.device, case.half)
    if budget > longest:
        fewer = max(64, min(longest, budget // 2))
        yield f"--micro-batch-tokens {fewer}", _changed(case, {"micro_batch_tokens": fewer})
    if config.evaluations and not (config.keep_best or config.patience):
        yield "--evaluations 0", _changed(case, {"evaluations": 0})
    answers, parameters = TASKS[config.task].answers, 0.9 * case.shape.parameters
    smaller = [base for base in base_shapes.BASES if base.answers == answers and base.shape.parameters < parameters]
    for base in sorted(smaller, key=lambda base: -base.shape.parameters):
        other = replace(_changed(case, {"model": base.id}), shape=base.shape)
        if other.estimate().fits_memory:
            yield f"{base.id} instead of {config.model}", other
            break


def _changed(case: Case, changes: Mapping[str, Any]) -> Case:
    return replace(case, config=replace(case.config, **changes))


def _tried(text: str, changed: Case) -> str:
    """The sentence that advises a change, empty where it does not fit."""
    found = changed.estimate()
    return f"{text} fits: {gigabytes(found.peak)}." if found.fits_memory else ""


def lengths_of(config: TrainConfig, report: Report | None) -> tuple[Lengths, int]:
    """Lengths of the rows of a run, and how many labels there are, from what is known of them."""
    if report is None:
        return of_limit(config.max_length, 1_000), 2
    return of_report(report), len(report.labels)
