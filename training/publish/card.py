"""The card of a version: metrics of base, baseline and new version on the same held-out rows, with the gate's decision.

The baseline is what the tab answers with when a run ends: the live version, or without one the tab's base.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from peft import PeftModel

from errors import GraftError
from models.resolve import Model, fits
from store.adapters import Version
from tasks import Task
from training.data.tokens import conversation, source_text
from training.loop import lora
from training.publish import gate, metrics
from training.publish.evaluate import Evaluation, Predictions

log = logging.getLogger("graft")

LIVE = "live"
"""Name of the live version's adapter in PEFT, and its key in the card."""
LARGEST_MATRIX = 100
"""Labels above which the card has no confusion matrix, whose cells would outnumber everything else."""


@dataclass(frozen=True)
class Baseline:
    """The live version or the tab's base on the held-out rows: its predictions, or the reason why it has none."""

    ref: str = ""
    evaluation: Evaluation | None = None
    """The rows with its own prompt, while its adapter is loaded beside the new one."""
    predictions: Predictions | None = None
    why: str = ""
    """none, labels, base, rows, elsewhere or refused; empty where there are predictions."""
    detail: str = ""

    def with_predictions(self, predictions: Predictions, why: str) -> Baseline:
        """Return the baseline with its predictions, or with the reason `why` if a loss is not finite."""
        if not np.isfinite(predictions.loss).all():
            return replace(self, why=why, detail="Its loss is not a number.")
        return replace(self, predictions=predictions)


MeasureElsewhere = Callable[[Evaluation, Version | None, Predictions], Baseline]
"""Evaluates a baseline that is on another base, given the predictions of the new version."""


def compare(
    net: PeftModel,
    evaluation: Evaluation,
    live: Version | None,
    model: Model,
    task: Task,
    rule: str,
    taught: Evaluation | None = None,
    measure_elsewhere: MeasureElsewhere | None = None,
    only_taught: bool = False,
) -> dict[str, Any]:
    """Evaluate the base, the live version and the new version on the held-out rows; returns the content of card.json.

    `net` has the new version's adapter, `rule` is the gate's. `taught` are corrections that were trained on, which are
    counted apart; `only_taught` says that the held-out rows are just these.
    """
    # Before the first pass, which packs 4-bit weights: loading an adapter later would round them anew.
    baseline = load_live(net, evaluation, live, model, task)
    try:
        new = evaluation.predict(net)
        base, base_by = _predict_base(net, evaluation, model)
        baseline = predict_live(net, baseline, live)
        corrections = _count_learned(net, taught, baseline, live, model, task) if taught else None
    finally:
        unload_live(net)
    if measure_elsewhere and baseline.why in ("base", "none"):
        baseline = measure_elsewhere(evaluation, live, new)
    predictions = {"base": base, **({LIVE: baseline.predictions} if baseline.predictions else {}), "new": new}
    before, live_ref = (LIVE, baseline.ref) if baseline.predictions else ("base", None)
    rows = _rows(evaluation, predictions, before)
    measures = {name: evaluation.metrics(found) for name, found in predictions.items()}
    values = {name: metrics.measure(found, len(rows)) for name, found in measures.items()}
    certainty = gate.certainty(evaluation, rows, measures, before)
    unmeasured = f"{baseline.ref}, {gate.CANNOT_COMPARE}" if baseline.why in gate.UNMEASURED else ""
    incomparable, name = gate.ONLY_LEARNED if only_taught else unmeasured, live_ref or "base"
    return {
        "metric": task.metric,
        "held_out": len(rows),
        "live_ref": live_ref,
        "no_live": {"ref": baseline.ref, "why": baseline.why, "detail": baseline.detail} if baseline.why else None,
        "base_by": base_by,
        **{name: values.get(name) for name in ("base", LIVE, "new")},
        "certainty": certainty,
        "classes": _classes(evaluation, predictions) if evaluation.labels else None,
        **{change: sum(row["change"] == change for row in rows) for change in (*gate.GAINED, *gate.LOST)},
        "gate": gate.decide(rule, task.metric, values[before], values["new"], name, certainty["sure"], incomparable),
        "corrections": corrections,
        "rows": rows[: evaluation.config.card_rows],
        **({"alone": True} if only_taught else {}),
    }


def load_live(net: PeftModel, evaluation: Evaluation, live: Version | None, model: Model, task: Task) -> Baseline:
    """Load the live version as a second adapter of the trained net, if it fits the net and these rows.

    It is verified first, because PEFT leaves half an adapter behind where loading fails.
    """
    if live is None:
        return Baseline(why="none")
    if sorted(live.labels) != sorted(evaluation.labels):
        return Baseline(live.ref, why="labels")
    if not fits(live, model) or live.manifest.get("task") != task.name:
        return Baseline(live.ref, why="base")
    own = evaluation.encoded_for(live, task.name)
    if len(own.held_out.kept) < len(evaluation.held_out.kept):
        return Baseline(live.ref, why="rows")

    def load() -> Baseline:
        live.check_files()
        lora.verify(net, live.path, live.ref)
        net.load_adapter(live.path, LIVE, torch_device=str(net.device))
        return Baseline(live.ref, own)

    return baseline_or_reason(live.ref, "refused", load)


def baseline_or_reason(ref: str, why: str, measure: Callable[[], Baseline]) -> Baseline:
    """Return the baseline that `measure` returns, or one with the reason `why` and details if it raises."""
    try:
        return measure()
    except GraftError as error:
        return Baseline(ref, why=why, detail=f"{error.what} {error.why}")
    except Exception as error:
        # Whatever is wrong with the baseline, the new version must not be lost by it.
        log.exception("%s could not be compared", ref)
        return Baseline(ref, why=why, detail=type(error).__name__)


def predict_live(net: PeftModel, baseline: Baseline, live: Version | None) -> Baseline:
    """Return the baseline with the live version's predictions, if its adapter was loaded."""
    if baseline.evaluation is None or live is None:
        return baseline
    net.set_adapter(LIVE, inference_mode=True)
    return baseline.with_predictions(baseline.evaluation.predict(net, live.labels), "refused")


def unload_live(net: PeftModel) -> None:
    """Remove the live version's adapter from the net, and activate the new one."""
    net.set_adapter("default", inference_mode=True)
    if LIVE in net.peft_config:
        net.delete_adapter(LIVE)


def _predict_base(net: PeftModel, evaluation: Evaluation, model: Model) -> tuple[Predictions, str]:
    with net.disable_adapter():
        return evaluation.predict_without_adapter(model, lambda head: net.get_base_model())


def _count_learned(
    net: PeftModel, taught: Evaluation, baseline: Baseline, live: Version | None, model: Model, task: Task
) -> dict[str, Any]:
    """Count the corrections that are answered correctly by the new version, and before by the baseline."""
    before = None
    if baseline.predictions and live:
        own = taught.encoded_for(live, task.name)
        net.set_adapter(LIVE, inference_mode=True)
        before = own.count_correct(own.predict(net, live.labels))[0] if own.held_out.kept else None
    elif live is None:
        before, _ = taught.count_correct(_predict_base(net, taught, model)[0])
    net.set_adapter("default", inference_mode=True)
    correct, rows = taught.count_correct(taught.predict(net))
    return {"rows": rows, "new": correct, "before": before}


def _classes(evaluation: Evaluation, predictions: Mapping[str, Predictions]) -> dict[str, Any]:
    """Return the confusion matrices of all models and their metrics of each label, confused labels side by side."""
    size, targets = len(evaluation.labels), evaluation.indices(evaluation.targets)
    matrices = {
        name: metrics.confusion(targets, evaluation.indices(found.answers), size) for name, found in predictions.items()
    }
    order = metrics.confused_order(sum(matrices.values()))  # type: ignore[arg-type]
    labels = [evaluation.labels[i] for i in order]
    ordered = {name: matrix[np.ix_(order, order)] for name, matrix in matrices.items()}
    return {
        "labels": labels,
        "confusion": {name: matrix.tolist() for name, matrix in ordered.items()} if size <= LARGEST_MATRIX else None,
        "per_class": {name: metrics.per_class(matrix, labels) for name, matrix in ordered.items()},
    }


def _rows(evaluation: Evaluation, predictions: Mapping[str, Predictions], before: str) -> list[dict[str, Any]]:
    """Return each held-out row with all answers and losses: changed ones first, the worst before the best."""
    losses = {name: found.row_losses for name, found in predictions.items()}
    kind = 0 if evaluation.labels else 1
    rows = []
    for i, row in enumerate(evaluation.held_out.kept):
        messages = conversation(row, "")
        target = messages[-1]["content"]
        answers = {name: predictions[name].answers[i] if name in predictions else "" for name in ("base", LIVE, "new")}
        loss = {name: round(values[i], 4) for name, values in losses.items()}
        was, now = (answers[name] == target if evaluation.labels else -loss[name] for name in (before, "new"))
        change = "" if was == now else gate.GAINED[kind] if now > was else gate.LOST[kind]
        rows.append({"text": source_text(messages), "target": target, **answers, "loss": loss, "change": change})
    order = {"broken": 0, "fixed": 1, "": 2} if evaluation.labels else {}

    def rank(row: dict[str, Any]) -> tuple[int, bool, float]:
        # Rows whose text was generated come first: the others have only their loss to show.
        return order.get(row["change"], 0), not row["new"], row["loss"][before] - row["loss"]["new"]

    return sorted(rows, key=rank)
