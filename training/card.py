"""The card: the same held-out rows before and after, the rows that changed, and whether the gate lets it through."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from peft import PeftModel

from store.adapters import Version
from store.loading import load_model, training_dtype
from store.models import Model
from tasks import LOWER_IS_BETTER, Task
from training.config import TrainConfig
from training.encoding import conversation, source_text
from training.evaluation import Outcome, Trial

log = logging.getLogger("graft")


def compare(
    net: PeftModel, trial: Trial, live: Version | None, model: Model, task: Task, quantize: str
) -> dict[str, Any]:
    """Base, live version and new version over the held-out rows, as card.json keeps it."""
    new = trial.of(net)
    with net.disable_adapter():
        base = trial.of_bare_encoder(net.get_base_model().base_model) if trial.labels else trial.of(net)
    before = _live_outcome(trial, live, model, task, quantize)
    contenders = {"base": base, "live": before, "new": new}
    rows = _rows(trial, contenders)
    reference, name = (before, live.ref) if before and live else (base, "base")
    return {
        "metric": task.metric,
        "held_out": len(trial.held_out.kept),
        "live_ref": live.ref if before and live else None,
        **{key: outcome.figures if outcome else None for key, outcome in contenders.items()},
        "fixed": sum(row["change"] == "fixed" for row in rows),
        "broken": sum(row["change"] == "broken" for row in rows),
        "gate": gate(task.metric, reference.figures, new.figures, name),
        "rows": rows[: trial.config.card_rows],
    }


def gate(metric: str, before: Mapping[str, float], after: Mapping[str, float], name: str) -> dict[str, Any]:
    """Whether the new version is not worse than what answered before, `name`, and the sentence that says so."""
    was, now = before[metric], after[metric]
    passes = now <= was if metric in LOWER_IS_BETTER else now >= was
    return {"pass": passes, "why": f"{metric} {was:.3f} ({name}) -> {now:.3f}"}


def readme(config: TrainConfig, facts: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """A model card for people: front matter that the Hub understands, and what is known, in plain words."""
    lines = [f"| {key} | {was:.3f} | {card['new'][key]:.3f} |" for key, was in card["base"].items()]
    return "\n".join([
        "---",
        f"base_model: {facts['base']['id']}",
        "library_name: peft",
        "tags: [lora, graft]",
        "---",
        f"# {config.name}",
        "",
        f"A LoRA adapter for `{facts['base']['id']}`, made by Graft for its {config.plugin} tab on {facts['created']}.",
        f"Trained on {facts['data']['trained']} rows of `{facts['data']['file']}`; "
        f"compared on {card['held_out']} rows that it never saw:",
        "",
        "| | base | this version |",
        "|---|---|---|",
        *lines,
        "",
    ])  # fmt: skip


def _live_outcome(trial: Trial, live: Version | None, model: Model, task: Task, quantize: str) -> Outcome | None:
    """The live version's outcome, or None where it cannot answer these rows: other labels, or another base."""
    if live is None or live.labels != trial.labels or not live.fits(model):
        return None
    try:
        live.check_files()
        head = {"num_labels": len(trial.labels), "ignore_mismatched_sizes": True} if trial.labels else {}
        net, _ = load_model(model, task.auto_class, quantize, training_dtype(trial.config.precision), **head)
        return trial.of(PeftModel.from_pretrained(net, live.path))
    except Exception:
        # Whatever is wrong with the version before, or with room for a second base: the new one must not be lost by it.
        log.exception("%s could not be compared", live.ref)
        return None


def _rows(trial: Trial, contenders: Mapping[str, Outcome | None]) -> list[dict[str, str]]:
    """Every held-out row with each contender's answer, those that changed first."""
    reference = contenders["live"] or contenders["base"]
    rows = []
    for i, row in enumerate(trial.held_out.kept):
        messages = conversation(row, "")
        target = messages[-1]["content"]
        answers = {key: outcome.answers[i] if outcome else "" for key, outcome in contenders.items()}
        before, after = reference.answers[i] == target, answers["new"] == target  # type: ignore[union-attr]
        change = ("fixed" if after else "broken") if trial.labels and before != after else ""
        rows.append({"text": source_text(messages), "target": target, **answers, "change": change})
    order = {"broken": 0, "fixed": 1, "": 2}
    return sorted(rows, key=lambda r: order[r["change"]])
