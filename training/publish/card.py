"""The card: the same held-out rows before and after, how certain the difference is, and what the gate makes of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from peft import PeftModel

from errors import GraftError
from models.resolve import Model, fits
from store.adapters import Version
from tasks import LOWER_IS_BETTER, Task
from training.data.tokens import conversation, encode_rows, source_text
from training.loop import lora
from training.publish import metrics
from training.publish.evaluate import ANSWERS_WRITTEN, Outcome, Trial, measured, rouge_l
from training.publish.metrics import Figure

ALIKE = 0.8
"""ROUGE-L from which a text says what it was to say; word for word is more than anybody asks of a summary."""


def tried(taught: Trial) -> int:
    """Of how many corrections the answers are looked at: all labels, the first texts."""
    count = len(taught.held_out.kept)
    return count if taught.labels else min(count, ANSWERS_WRITTEN)


def count_right(taught: Trial, outcome: Outcome) -> int:
    """How many of these are answered as they were corrected."""
    pairs = list(zip(taught.targets, outcome.answers, strict=True))[: tried(taught)]
    return sum(target == answer if taught.labels else rouge_l(target, answer) >= ALIKE for target, answer in pairs)


def held_back(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a version that could be compared only on what it has learned from: a person decides.

    Unless the gate's rule compares nothing anyway.
    """
    gate = card["gate"]
    why = f"No rows but the corrections could be compared, and it has learned from these; gate: {gate['rule']}"
    return {**card, "alone": True, "gate": {**gate, "pass": gate["rule"] == "always" and gate["pass"], "why": why}}


log = logging.getLogger("graft")

LIVE = "live"
"""The name of the live version's adapter, while it stands beside the new one in the trained net."""
GAINED, LOST = ("fixed", "better"), ("broken", "worse")
"""What became of a row: of labels, and of texts."""
LARGEST_MATRIX = 100
"""Above so many labels the card keeps no confusion matrix: its cells would outnumber everything else."""


@dataclass(frozen=True)
class Rival:
    """The live version's part in a comparison: what it made of the rows, or why it has no column."""

    ref: str = ""
    trial: Trial | None = None
    """The rows as it is asked them, while it is loaded beside the new version."""
    labels: Sequence[str] = ()
    outcome: Outcome | None = None
    why: str = ""
    """none, labels, base, rows, elsewhere or refused; empty where there is an outcome."""
    detail: str = ""


UNMEASURED = ("base", "rows", "elsewhere")
"""Why a version that answers well now may have no column: then the gate has nothing to compare the new one with."""
AskElsewhere = Callable[[Trial, Version | None, Outcome], Rival]
"""Measures what answers now on a base of its own, given what the new version made of the rows."""


def compare(
    net: PeftModel,
    trial: Trial,
    live: Version | None,
    model: Model,
    task: Task,
    rule: str,
    taught: Trial | None = None,
    elsewhere: AskElsewhere | None = None,
) -> dict[str, Any]:
    """Base, live version and new version over the held-out rows, as card.json keeps it; `rule` is the gate's.

    `taught` are the corrections that the new version has learned from, which are counted beside. `elsewhere` measures
    what answers now where that is on another base than the new version.
    """
    # Before the first pass: bitsandbytes packs 4-bit weights at it, and loading an adapter later would round them anew.
    rival = admit(net, trial, live, model, task)
    try:
        new = trial.of(net)
        base, by = base_outcome(net, trial, model)
        rival = answered(net, rival)
        learned = _learned(net, taught, rival, live, model, task) if taught else None
    finally:
        dismiss(net)
    if elsewhere and rival.why in ("base", "none"):
        rival = elsewhere(trial, live, new)
    contenders = {"base": base, **({LIVE: rival.outcome} if rival.outcome else {}), "new": new}
    before = LIVE if rival.outcome else "base"
    rows = _rows(trial, contenders, before)
    of = {name: trial.figures(outcome) for name, outcome in contenders.items()}
    values = {name: measured(found, len(rows)) for name, found in of.items()}
    certainty = _certainty(trial, rows, of, before)
    passed = gate(rule, task.metric, values[before], values["new"], rival.ref if rival.outcome else "base",
                  certainty["sure"])  # fmt: skip
    return {
        "metric": task.metric,
        "held_out": len(rows),
        "live_ref": rival.ref if rival.outcome else None,
        "no_live": {"ref": rival.ref, "why": rival.why, "detail": rival.detail} if rival.why else None,
        "base_by": by,
        "base": values["base"],
        "live": values.get(LIVE),
        "new": values["new"],
        "certainty": certainty,
        "classes": _classes(trial, contenders) if trial.labels else None,
        **{change: sum(row["change"] == change for row in rows) for change in (*GAINED, *LOST)},
        "gate": unmeasured(passed, rival) if rival.why in UNMEASURED else passed,
        "corrections": learned,
        "rows": rows[: trial.config.card_rows],
    }


def _learned(
    net: PeftModel, taught: Trial, rival: Rival, live: Version | None, model: Model, task: Task
) -> dict[str, Any]:
    """How many of the corrections are answered right by the new version, and by what answered before."""
    before = None
    if rival.outcome and live:
        asked = as_asked(taught, live, task)
        net.set_adapter(LIVE, inference_mode=True)
        before = count_right(asked, asked.of(net, rival.labels)) if asked.held_out.kept else None
    elif live is None:
        before = count_right(taught, base_outcome(net, taught, model)[0])
    net.set_adapter("default", inference_mode=True)
    new = count_right(taught, taught.of(net))
    return {"rows": tried(taught), "new": new, "before": before}


def gate(
    rule: str, metric: str, before: Mapping[str, float], after: Mapping[str, float], name: str, sure: bool = False
) -> dict[str, Any]:
    """Whether the new version may answer at once, and the sentence that says so; `name` is what answered before.

    `rule`: not-worse, better (the difference must be `sure`), always, or never (a person decides). A figure that is
    not a number never passes.
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


def unmeasured(passed: Mapping[str, Any], rival: Rival) -> dict[str, Any]:
    """The gate where what answers now could not be measured: only a rule that compares nothing lets it pass."""
    why = f"{rival.ref}, which answers now, could not be measured on these rows; gate: {passed['rule']}"
    return {"pass": passed["rule"] == "always" and passed["pass"], "rule": passed["rule"], "why": why}


def base_outcome(net: PeftModel, trial: Trial, model: Model) -> tuple[Outcome, str]:
    """What answers without any version, and how: by its own trained head, by meaning (zero-shot), or by writing."""
    with net.disable_adapter():
        if not trial.labels:
            return trial.of(net), "writing"
        own = own_labels(model, trial.labels)
        if own:
            return trial.of(net, own), "head"
        return trial.of_bare_encoder(net.get_base_model().base_model), "meaning"


def own_labels(model: Model, labels: list[str]) -> list[str]:
    """The rows' labels in the order of the base's own trained head; empty where it has none for these labels."""
    architecture = next(iter(model.config.get("architectures") or ()), "")
    names = model.config.get("id2label") or {}
    mine = {label.casefold(): label for label in labels}
    heads = [str(names[key]).casefold() for key in sorted(names, key=int)]
    if not architecture.endswith("ForSequenceClassification") or sorted(heads) != sorted(mine):
        return []
    return [mine[name] for name in heads]


def admit(net: PeftModel, trial: Trial, live: Version | None, model: Model, task: Task) -> Rival:
    """Load the live version as a second adapter of the trained net, if it can answer these rows at all.

    Verified first, because PEFT leaves half an adapter behind where loading fails.
    """
    if live is None:
        return Rival(why="none")
    if sorted(live.labels) != sorted(trial.labels):
        return Rival(live.ref, why="labels")
    if not fits(live, model) or live.manifest.get("task") != task.name:
        return Rival(live.ref, why="base")
    own = as_asked(trial, live, task)
    if len(own.held_out.kept) < len(trial.held_out.kept):
        return Rival(live.ref, why="rows")
    try:
        live.check_files()
        lora.verify(net, live.path, live.ref)
        net.load_adapter(live.path, LIVE, torch_device=str(net.device))
    except GraftError as error:
        return Rival(live.ref, why="refused", detail=f"{error.what} {error.why}")
    except Exception as error:
        # Whatever is wrong with the version before: the new one must not be lost by it.
        log.exception("%s could not be compared", live.ref)
        return Rival(live.ref, why="refused", detail=type(error).__name__)
    return Rival(live.ref, own, live.labels)


def answered(net: PeftModel, rival: Rival) -> Rival:
    """The live version with its outcome, where it was admitted."""
    if rival.trial is None:
        return rival
    net.set_adapter(LIVE, inference_mode=True)
    outcome = rival.trial.of(net, rival.labels)
    if not np.isfinite(outcome.loss).all():
        return replace(rival, why="refused", detail="Its loss is not a number.")
    return replace(rival, outcome=outcome)


def dismiss(net: PeftModel) -> None:
    """Leave the net with the new version alone."""
    net.set_adapter("default", inference_mode=True)
    if LIVE in net.peft_config:
        net.delete_adapter(LIVE)


def as_asked(trial: Trial, live: Version, task: Task) -> Trial:
    """The rows as the live version is asked them when it serves: with the prompt that it was trained with."""
    prompt = str(live.manifest.get("prompt") or "")
    if trial.labels or prompt == trial.config.prompt:
        return trial
    config = replace(trial.config, prompt=prompt)
    held_out = encode_rows(trial.held_out.kept, trial.tokenizer, config, trial.labels, task.name)
    return replace(trial, config=config, held_out=held_out)


def _certainty(
    trial: Trial, rows: Sequence[Mapping[str, Any]], of: Mapping[str, Mapping[str, Figure]], before: str
) -> dict[str, Any]:
    """Intervals of each figure, and whether the difference in the task's own metric is more than chance.

    Resamples of few rows know too little of what was not drawn, so the exact test of the rows that changed must agree.
    """
    intervals = {
        figure: metrics.bootstrap(
            {name: found[figure] for name, found in of.items()}, before, len(rows), trial.config.seed
        )
        for figure in of["new"]
    }
    low, high = intervals["accuracy" if trial.labels else "loss"]["difference"]
    gained, lost = (sum(row["change"] in changes for row in rows) for changes in (GAINED, LOST))
    p = metrics.sign_test(gained, lost)
    least = min(1.0, metrics.LEAST_CHANGED / len(rows)) if trial.labels else 0.0
    return {
        "level": metrics.LEVEL,
        "resamples": metrics.RESAMPLES,
        "intervals": intervals,
        "p": p,
        "sure": not low <= 0 <= high and p < 1 - metrics.LEVEL,
        "least": max((high - low) / 2, least),
    }


def _classes(trial: Trial, contenders: Mapping[str, Outcome]) -> dict[str, Any]:
    """Confusion matrices and figures of each label, in an order that shows what is taken for what."""
    size = len(trial.labels)
    targets = trial.indices(trial.targets)
    answers = {name: trial.indices(outcome.answers) for name, outcome in contenders.items()}
    matrices = {name: metrics.confusion(targets, given, size) for name, given in answers.items()}
    order = metrics.confused_order(sum(matrices.values()))  # type: ignore[arg-type]
    labels = [trial.labels[i] for i in order]
    ordered = {name: matrix[np.ix_(order, order)] for name, matrix in matrices.items()}
    return {
        "labels": labels,
        "confusion": {name: matrix.tolist() for name, matrix in ordered.items()} if size <= LARGEST_MATRIX else None,
        "per_class": {name: metrics.per_class(matrix, labels) for name, matrix in ordered.items()},
    }


def _rows(trial: Trial, contenders: Mapping[str, Outcome], before: str) -> list[dict[str, Any]]:
    """Every held-out row with each contender's answer and loss, those that changed first, the worst before the best."""
    losses = {name: outcome.row_losses for name, outcome in contenders.items()}
    rows = []
    for i, row in enumerate(trial.held_out.kept):
        messages = conversation(row, "")
        target = messages[-1]["content"]
        answers = {name: contenders[name].answers[i] if name in contenders else "" for name in ("base", LIVE, "new")}
        loss = {name: round(values[i], 4) for name, values in losses.items()}
        if trial.labels:
            was, now = answers[before] == target, answers["new"] == target
            change = "" if was == now else "fixed" if now else "broken"
        else:
            change = "" if loss["new"] == loss[before] else "better" if loss["new"] < loss[before] else "worse"
        rows.append({"text": source_text(messages), "target": target, **answers, "loss": loss, "change": change})
    order = {"broken": 0, "fixed": 1, "": 2} if trial.labels else {}
    # Rows of text whose answers were written come first: the others have only their loss to show.
    return sorted(rows, key=lambda r: (order.get(r["change"], 0), not r["new"], loss_change(r, before)))


def loss_change(row: Mapping[str, Any], before: str) -> float:
    """How much better a row became; negative where it became worse."""
    return float(row["loss"][before] - row["loss"]["new"])
