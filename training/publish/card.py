"""The card: metrics of base, live version and new version on the same held-out rows, with the gate's decision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
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
"""PEFT's name of the live version's adapter, while it is loaded beside the new one."""
LARGEST_MATRIX = 100
"""Labels above which the card has no confusion matrix: its cells would outnumber everything else."""


@dataclass(frozen=True)
class Baseline:
    """The contender that answers now: its predictions for the rows, or the reason why it has none."""

    ref: str = ""
    evaluation: Evaluation | None = None
    """The rows as it is asked them, while it is loaded beside the new version."""
    labels: Sequence[str] = ()
    predictions: Predictions | None = None
    why: str = ""
    """none, labels, base, rows, elsewhere or refused; empty where there are predictions."""
    detail: str = ""

    def predicted(self, predictions: Predictions, why: str) -> Baseline:
        """Return it with its predictions, or with the reason `why` where a loss is not a number."""
        if not np.isfinite(predictions.loss).all():
            return replace(self, why=why, detail="Its loss is not a number.")
        return replace(self, predictions=predictions)


Elsewhere = Callable[[Evaluation, Version | None, Predictions], Baseline]
"""Measures what answers now on another base, given the predictions of the new version."""


def compare(
    net: PeftModel,
    evaluation: Evaluation,
    live: Version | None,
    model: Model,
    task: Task,
    rule: str,
    taught: Evaluation | None = None,
    elsewhere: Elsewhere | None = None,
) -> dict[str, Any]:
    """Compare base, live version and new version on the held-out rows; returns card.json. `rule` is the gate's.

    `taught` are the corrections it was trained on, counted apart; `elsewhere` measures what answers on another base.
    """
    # Before the first pass, which packs 4-bit weights: loading an adapter later would round them anew.
    baseline = admit(net, evaluation, live, model, task)
    try:
        new = evaluation.predict(net)
        base, by = _predict_base(net, evaluation, model)
        baseline = predict_live(net, baseline)
        learned = _count_learned(net, taught, baseline, live, model, task) if taught else None
    finally:
        dismiss(net)
    if elsewhere and baseline.why in ("base", "none"):
        baseline = elsewhere(evaluation, live, new)
    contenders = {"base": base, **({LIVE: baseline.predictions} if baseline.predictions else {}), "new": new}
    before, name = (LIVE, baseline.ref) if baseline.predictions else ("base", None)
    rows = _rows(evaluation, contenders, before)
    of = {name: evaluation.metrics(predictions) for name, predictions in contenders.items()}
    values = {name: metrics.measure_all(found, len(rows)) for name, found in of.items()}
    certainty = gate.certainty(evaluation, rows, of, before)
    decision = gate.decide(rule, task.metric, values[before], values["new"], name or "base", certainty["sure"])
    if baseline.why in gate.UNMEASURED:
        decision = gate.without_comparison(decision, f"{baseline.ref}, {gate.CANNOT_COMPARE}")
    return {
        "metric": task.metric,
        "held_out": len(rows),
        "live_ref": name,
        "no_live": {"ref": baseline.ref, "why": baseline.why, "detail": baseline.detail} if baseline.why else None,
        "base_by": by,
        "base": values["base"],
        "live": values.get(LIVE),
        "new": values["new"],
        "certainty": certainty,
        "classes": _classes(evaluation, contenders) if evaluation.labels else None,
        **{change: sum(row["change"] == change for row in rows) for change in (*gate.GAINED, *gate.LOST)},
        "gate": decision,
        "corrections": learned,
        "rows": rows[: evaluation.config.card_rows],
    }


def admit(net: PeftModel, evaluation: Evaluation, live: Version | None, model: Model, task: Task) -> Baseline:
    """Load the live version as a second adapter of the trained net, if it can answer these rows at all.

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
        return Baseline(live.ref, own, live.labels)

    return baseline_or_reason(live.ref, "refused", load)


def baseline_or_reason(ref: str, why: str, measure: Callable[[], Baseline]) -> Baseline:
    """Return the baseline that `measure` makes, or one with the reason `why` and details where it raises."""
    try:
        return measure()
    except GraftError as error:
        return Baseline(ref, why=why, detail=f"{error.what} {error.why}")
    except Exception as error:
        # Anything may be wrong with what answers now, and the new version must not be lost by it.
        log.exception("%s could not be compared", ref)
        return Baseline(ref, why=why, detail=type(error).__name__)


def predict_live(net: PeftModel, baseline: Baseline) -> Baseline:
    """Return the live version with its predictions, where it was admitted."""
    if baseline.evaluation is None:
        return baseline
    net.set_adapter(LIVE, inference_mode=True)
    return baseline.predicted(baseline.evaluation.predict(net, baseline.labels), "refused")


def dismiss(net: PeftModel) -> None:
    """Remove the live version's adapter from the net."""
    net.set_adapter("default", inference_mode=True)
    if LIVE in net.peft_config:
        net.delete_adapter(LIVE)


def _predict_base(net: PeftModel, evaluation: Evaluation, model: Model) -> tuple[Predictions, str]:
    with net.disable_adapter():
        return evaluation.predict_without_adapter(model, lambda head: net.get_base_model())


def _count_learned(
    net: PeftModel, taught: Evaluation, baseline: Baseline, live: Version | None, model: Model, task: Task
) -> dict[str, Any]:
    """Count the corrections that the new version answers correctly, and that what answers now does."""
    before = None
    if baseline.predictions and live:
        asked = taught.encoded_for(live, task.name)
        net.set_adapter(LIVE, inference_mode=True)
        before = asked.count_correct(asked.predict(net, baseline.labels))[0] if asked.held_out.kept else None
    elif live is None:
        before, _ = taught.count_correct(_predict_base(net, taught, model)[0])
    net.set_adapter("default", inference_mode=True)
    correct, rows = taught.count_correct(taught.predict(net))
    return {"rows": rows, "new": correct, "before": before}


def _classes(evaluation: Evaluation, contenders: Mapping[str, Predictions]) -> dict[str, Any]:
    """Return confusion matrices and metrics of each label, with labels that are confused side by side."""
    size = len(evaluation.labels)
    targets = evaluation.indices(evaluation.targets)
    answers = {name: evaluation.indices(predictions.answers) for name, predictions in contenders.items()}
    matrices = {name: metrics.confusion(targets, given, size) for name, given in answers.items()}
    order = metrics.confused_order(sum(matrices.values()))  # type: ignore[arg-type]
    labels = [evaluation.labels[i] for i in order]
    ordered = {name: matrix[np.ix_(order, order)] for name, matrix in matrices.items()}
    return {
        "labels": labels,
        "confusion": {name: matrix.tolist() for name, matrix in ordered.items()} if size <= LARGEST_MATRIX else None,
        "per_class": {name: metrics.per_class(matrix, labels) for name, matrix in ordered.items()},
    }


def _rows(evaluation: Evaluation, contenders: Mapping[str, Predictions], before: str) -> list[dict[str, Any]]:
    """Return each held-out row with all answers and losses: changed ones first, the worst before the best."""
    losses = {name: predictions.row_losses for name, predictions in contenders.items()}
    rows = []
    for i, row in enumerate(evaluation.held_out.kept):
        messages = conversation(row, "")
        target = messages[-1]["content"]
        answers = {name: contenders[name].answers[i] if name in contenders else "" for name in ("base", LIVE, "new")}
        loss = {name: round(values[i], 4) for name, values in losses.items()}
        if evaluation.labels:
            was, now = answers[before] == target, answers["new"] == target
            change = "" if was == now else "fixed" if now else "broken"
        else:
            change = "" if loss["new"] == loss[before] else "better" if loss["new"] < loss[before] else "worse"
        rows.append({"text": source_text(messages), "target": target, **answers, "loss": loss, "change": change})
    order = {"broken": 0, "fixed": 1, "": 2} if evaluation.labels else {}

    def rank(row: dict[str, Any]) -> tuple[int, bool, float]:
        # Rows of text whose answers were written come first: the others have only their loss to show.
        return order.get(row["change"], 0), not row["new"], row["loss"][before] - row["loss"]["new"]

    return sorted(rows, key=rank)
