"""The gate: decides from a card's metrics whether a new version may become live, and how sure a difference is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasks import LOWER_IS_BETTER
from training.publish import metrics
from training.publish.evaluate import Evaluation
from training.publish.metrics import Metric

GAINED, LOST = ("fixed", "better"), ("broken", "worse")
"""Changes of a row: of labels, and of texts."""
UNMEASURED = ("base", "rows", "elsewhere")
"""Reasons why the live version was not measured, so that nothing is compared."""
CANNOT_COMPARE = "which answers now, could not be measured on these rows"
ONLY_LEARNED = "No rows but the corrections could be compared, and it has learned from these"


def decide(
    rule: str, metric: str, before: Mapping[str, float], after: Mapping[str, float], name: str, sure: bool = False
) -> dict[str, Any]:
    """Decide whether the new version may answer at once, with a sentence; `name` is what answered before.

    `rule`: not-worse, better (the difference must be `sure`), always, or never (a person decides). A metric that is not
    a number never passes.
    """
    was, now = before[metric], after[metric]
    not_worse = now <= was if metric in LOWER_IS_BETTER else now >= was
    passes = {
        "not-worse": not_worse,
        "better": not_worse and sure,
        "always": math.isfinite(now),
        "never": False,
    }[rule]
    return {"pass": passes, "rule": rule, "why": f"{metric} {was:.3f} ({name}) -> {now:.3f}; gate: {rule}"}


def hold_back(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return the card of a version that could be compared only on rows it was trained on: a person decides."""
    return {**card, "alone": True, "gate": without_comparison(card["gate"], ONLY_LEARNED)}


def without_comparison(decision: Mapping[str, Any], why: str) -> dict[str, Any]:
    """Return the gate's decision where nothing was compared: only the rule `always` passes."""
    rule = decision["rule"]
    return {"pass": rule == "always" and decision["pass"], "rule": rule, "why": f"{why}; gate: {rule}"}


def certainty(
    evaluation: Evaluation, rows: Sequence[Mapping[str, Any]], of: Mapping[str, Mapping[str, Metric]], before: str
) -> dict[str, Any]:
    """Return intervals of each metric, and whether the difference in the task's own metric is more than chance.

    Resamples of few rows do not know what was not drawn, so the exact test of the rows that changed must agree.
    """
    seed = evaluation.config.seed
    intervals = {
        metric: metrics.bootstrap({name: found[metric] for name, found in of.items()}, before, len(rows), seed)
        for metric in of["new"]
    }
    low, high = intervals["accuracy" if evaluation.labels else "loss"]["difference"]
    gained, lost = (sum(row["change"] in changes for row in rows) for changes in (GAINED, LOST))
    p = metrics.sign_test(gained, lost)
    least = min(1.0, metrics.LEAST_CHANGED / len(rows)) if evaluation.labels else 0.0
    return {
        "level": metrics.LEVEL,
        "resamples": metrics.RESAMPLES,
        "intervals": intervals,
        "p": p,
        "sure": not low <= 0 <= high and p < 1 - metrics.LEVEL,
        "least": max((high - low) / 2, least),
    }
