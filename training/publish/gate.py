"""The gate: decides by the metrics of a card whether a new version goes live, and how certain a difference is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tasks import LOWER_IS_BETTER
from training.publish import metrics
from training.publish.evaluate import Evaluation
from training.publish.metrics import Metric

GAINED, LOST = ("fixed", "better"), ("broken", "worse")
"""Changes of a row from the baseline to the new version, of a label and of a text."""
UNMEASURED = ("base", "rows", "elsewhere")
"""Reasons for a missing baseline that leave the gate nothing to compare with."""
CANNOT_COMPARE = "which answers now, could not be measured on these rows"
ONLY_LEARNED = "No rows but the corrections could be compared, and it has learned from these"


def decide(
    rule: str,
    metric: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    name: str,
    sure: bool = False,
    incomparable: str = "",
) -> dict[str, Any]:
    """Decide whether the new version goes live at once, with a sentence; `name` is the baseline's.

    `rule` is not-worse, better (the difference must be `sure`), always, or never (a person decides). A metric that is
    not a number never passes. With a reason why the two are `incomparable`, only the rule always passes.
    """
    was, now = before[metric], after[metric]
    not_worse = not incomparable and (now <= was if metric in LOWER_IS_BETTER else now >= was)
    rules = {"not-worse": not_worse, "better": not_worse and sure, "always": math.isfinite(now), "never": False}
    why = incomparable or f"{metric} {was:.3f} ({name}) -> {now:.3f}"
    return {"pass": rules[rule], "rule": rule, "why": f"{why}; gate: {rule}"}


def certainty(
    evaluation: Evaluation, rows: Sequence[Mapping[str, Any]], measures: Mapping[str, Mapping[str, Metric]], before: str
) -> dict[str, Any]:
    """Return intervals of each metric, and whether the difference in the task's own metric is more than chance.

    Resamples of few rows vary too little, so an exact test of the rows that changed must agree.
    """
    seed = evaluation.config.seed
    intervals = {
        metric: metrics.bootstrap({name: found[metric] for name, found in measures.items()}, before, len(rows), seed)
        for metric in measures["new"]
    }
    low, high = intervals["accuracy" if evaluation.labels else "loss"]["difference"]
    gained, lost = (sum(row["change"] in changes for row in rows) for changes in (GAINED, LOST))
    p = metrics.sign_test(gained, lost)
    least = min(1.0, metrics.LEAST_SIGNIFICANT / len(rows)) if evaluation.labels else 0.0
    return {
        "level": metrics.LEVEL,
        "resamples": metrics.RESAMPLES,
        "intervals": intervals,
        "p": p,
        "sure": not low <= 0 <= high and p < 1 - metrics.LEVEL,
        "least": max((high - low) / 2, least),
    }
