"""training/publish/card.py: before and after on the same rows, what changed, and the gate, both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from settings import GATES
from store import files
from store.adapters import AdapterStore, Version
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.training_helpers import config_of, run_worker, spec_of
from training.config import TrainConfig
from training.data.tokens import Encoded
from training.publish import card
from training.publish.evaluate import Outcome, Trial


@pytest.mark.parametrize(
    ("metric", "was", "now", "passes"),
    [
        ("accuracy", 0.5, 0.6, True), ("accuracy", 0.5, 0.5, True), ("accuracy", 0.6, 0.5, False),
        ("loss", 2.0, 1.0, True), ("loss", 1.0, 1.0, True), ("loss", 1.0, 1.001, False),
        ("accuracy", 0.5, float("nan"), False), ("loss", 1.0, float("nan"), False), ("perplexity", 9, 8, True),
    ],
)  # fmt: skip
def test_the_gate_lets_through_what_is_not_worse(metric: str, was: float, now: float, passes: bool) -> None:
    found = card.gate("not-worse", metric, {metric: was, "other": 0}, {metric: now, "other": 0}, "tickets@3")
    assert found["pass"] is passes and found["rule"] == "not-worse"
    assert found["why"].startswith(f"{metric} {was:.3f} (tickets@3) -> ")


def trial(targets: list[str], labels: list[str]) -> Trial:
    rows = [{"text": f"row {i}", "target": target} for i, target in enumerate(targets)]
    config = TrainConfig(
        name="a", plugin="p", model="m", task="text-classification", data="d",
        columns={"text": "text", "target": "target"},
    )  # fmt: skip
    return Trial(Encoded([], rows, 0), None, labels, config)  # type: ignore[arg-type]


def outcome(answers: list[str], *losses: float) -> Outcome:
    return Outcome(answers, np.array(losses or [1.0] * len(answers)), np.ones(len(answers)))


@pytest.mark.parametrize(
    ("rule", "now", "sure", "passes"),
    [
        ("better", 0.6, True, True), ("better", 0.6, False, False), ("better", 0.4, True, False),
        ("always", 0.1, False, True), ("always", float("nan"), False, False), ("never", 0.9, True, False),
        ("not-worse", 0.6, False, True), ("not-worse", 0.4, True, False),
    ],
)  # fmt: skip
def test_each_rule_of_the_gate(rule: str, now: float, sure: bool, passes: bool) -> None:
    found = card.gate(rule, "accuracy", {"accuracy": 0.5}, {"accuracy": now}, "base", sure)
    assert found["pass"] is passes and found["why"] == f"accuracy 0.500 (base) -> {now:.3f}; gate: {rule}"


def test_the_gates_rules_are_those_of_the_settings() -> None:
    for rule in GATES:
        assert card.gate(rule, "loss", {"loss": 1}, {"loss": 0.5}, "base", True)["pass"] is (rule != "never")


BASE, LIVE, NEW = ["a", "a", "b", "b"], ["a", "b", "b", "b"], ["a", "a", "a", "b"]
TARGETS = ["a", "a", "b", "a"]


@pytest.mark.parametrize(
    ("live", "changes"),
    [
        (None, {"row 0": "", "row 1": "", "row 2": "broken", "row 3": ""}),
        (LIVE, {"row 0": "", "row 1": "fixed", "row 2": "broken", "row 3": ""}),
    ],
    ids=["against the base", "against the live version"],
)
def test_rows_that_changed_are_told_from_what_answered_before(live: list[str] | None, changes: dict[str, str]) -> None:
    contenders = {"base": outcome(BASE), **({"live": outcome(live)} if live else {}), "new": outcome(NEW)}
    rows = card._rows(trial(TARGETS, ["a", "b"]), contenders, "live" if live else "base")
    assert {row["text"]: row["change"] for row in rows} == changes
    order = ["broken", "fixed", ""]
    assert [row["change"] for row in rows] == sorted((row["change"] for row in rows), key=order.index)
    for row in rows:
        i = int(row["text"][-1])
        assert (row["base"], row["live"], row["new"]) == (BASE[i], live[i] if live else "", NEW[i])


def test_rows_of_text_are_better_or_worse_by_their_loss() -> None:
    contenders = {
        "base": outcome(["x", "y", "", ""], 9, 9, 9, 9),
        "live": outcome(["x", "y", "", ""], 2, 2, 3, 3),
        "new": outcome(["a", "b", "", ""], 1, 3, 3, 1),
    }
    rows = card._rows(trial(["p", "q", "r", "s"], []), contenders, "live")
    assert [(row["target"], row["change"]) for row in rows] == [
        ("q", "worse"), ("p", "better"), ("r", ""), ("s", "better"),  # rows with answers first, the worst of them first
    ]  # fmt: skip
    assert rows[0]["loss"] == {"base": 9, "live": 2, "new": 3}


def test_figures_count_the_rows_they_are_of(bert: Trained) -> None:
    found = bert.first.card
    rows = found["rows"]
    assert found["held_out"] == len(rows) > 0
    assert found["live"] is None and found["live_ref"] is None
    for contender in ("base", "new"):
        right = sum(row[contender] == row["target"] for row in rows)
        assert found[contender]["accuracy"] == pytest.approx(right / len(rows))
    assert found["fixed"] == sum(r["base"] != r["target"] == r["new"] for r in rows)
    assert found["broken"] == sum(r["new"] != r["target"] == r["base"] for r in rows)
    assert found["gate"]["pass"] == (found["new"]["accuracy"] >= found["base"]["accuracy"])


def test_the_base_of_a_classifier_is_zero_shot(bert: Trained) -> None:
    loaded = bert.load()
    for row in bert.first.card["rows"]:
        scores = loaded.labels.zero_shot(row["text"], ["0", "1"])
        assert row["base"] == max(scores, key=scores.__getitem__)


def test_a_base_with_a_head_for_these_labels_answers_with_it(tmp_path: Path) -> None:
    """Its labels are in another order and other letters; it answers as transformers says."""
    folder = tiny.make("distilbert", tmp_path / "base")
    torch.manual_seed(1)
    names = {0: "POSITIVE", 1: "Neutral", 2: "negative"}
    net = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, id2label=names)
    net.classifier.weight.data.normal_(0, 2)
    net.save_pretrained(folder)
    spec = spec_of("distilbert", folder)
    labels = ["negative", "neutral", "positive"]
    data = tmp_path / "mood_rows.csv"
    data.write_text("text,label\n" + "".join(f"row {'number ' * (i % 5)}{i},{labels[i % 3]}\n" for i in range(30)))
    result = run_worker(replace(config_of(spec, tmp_path, "moods"), data=str(data)), tmp_path)
    assert result["state"] == "done", result
    found, tokenizer = result["card"], AutoTokenizer.from_pretrained(folder)
    assert found["base_by"] == "head" and len(found["rows"]) >= 5
    for row in found["rows"]:
        logits = net.eval()(**tokenizer(row["text"], return_tensors="pt")).logits
        assert row["base"] == names[int(logits.argmax())].lower()


@pytest.mark.parametrize(
    ("architectures", "id2label", "order"),
    [
        (["BertForSequenceClassification"], {"0": "b", "1": "A"}, ["b", "a"]),
        (["BertForSequenceClassification"], {"0": "b", "1": "c"}, []),
        (["BertForSequenceClassification"], {"0": "b"}, []),
        (["BertModel"], {"0": "b", "1": "a"}, []),
        (None, None, []),
    ],
)
def test_when_a_bases_head_is_one_for_these_labels(
    architectures: list[str] | None, id2label: dict[str, str] | None, order: list[str]
) -> None:
    model = SimpleNamespace(config={"architectures": architectures, "id2label": id2label})
    assert card.own_labels(model, ["a", "b"]) == order  # type: ignore[arg-type]


def test_a_difference_is_sure_only_if_the_exact_test_says_so_too() -> None:
    """Four of 25 rows fixed: resamples always have some of them, but four coins may all fall on one side."""
    targets = ["a"] * 25

    def certainty(fixed: int) -> dict[str, Any]:
        contenders = {"base": outcome(["b"] * fixed + targets[fixed:]), "new": outcome(targets)}
        tried = trial(targets, ["a", "b"])
        of = {name: tried.figures(found) for name, found in contenders.items()}
        return card._certainty(tried, card._rows(tried, contenders, "base"), of, "base")

    assert certainty(4)["intervals"]["accuracy"]["difference"][0] > 0 and certainty(4)["p"] == pytest.approx(0.125)
    assert [certainty(fixed)["sure"] for fixed in (0, 4, 8)] == [False, False, True]
    assert certainty(0)["least"] == 6 / 25


def test_of_five_texts_nothing_is_sure_however_much_better_they_are() -> None:
    def sure(rows: int) -> bool:
        contenders = {name: outcome([""] * rows, *[loss] * rows) for name, loss in (("base", 9.0), ("new", 1.0))}
        tried = trial(["a"] * rows, [])
        of = {name: tried.figures(found) for name, found in contenders.items()}
        return bool(card._certainty(tried, card._rows(tried, contenders, "base"), of, "base")["sure"])

    assert [sure(5), sure(6)] == [False, True]


def test_matrices_are_of_the_rows_and_left_out_for_very_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    contenders = {"base": outcome(BASE), "new": outcome(NEW)}
    found = card._classes(trial(TARGETS, ["a", "b", "c"]), contenders)
    assert sorted(found["labels"]) == ["a", "b", "c"]
    at = {label: i for i, label in enumerate(found["labels"])}
    assert found["confusion"]["new"][at["a"]][at["b"]] == 1 and found["confusion"]["new"][at["b"]][at["a"]] == 1
    assert sum(map(sum, found["confusion"]["new"])) == 4
    assert [row["label"] for row in found["per_class"]["new"]] == found["labels"]
    monkeypatch.setattr(card, "LARGEST_MATRIX", 2)
    assert card._classes(trial(TARGETS, ["a", "b", "c"]), contenders)["confusion"] is None


def test_promotion_asks_the_gate(bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AdapterStore(tmp_path)
    for name, passes in (("bad", False), ("good", True)):
        monkeypatch.setattr(card, "gate", lambda *_, passes=passes: {"pass": passes, "why": "as told"})
        result = run_worker(config_of(bert.spec, tmp_path, name, promote=True), tmp_path)
        assert result["promoted"] is passes
        live = store.live("classification")
        assert (live.ref if live else None) == (result["version"] if passes else None)
    last = store.history("classification")[-1]
    assert (last["why"], last["who"]) == ("as told", "gate of run good")


def test_the_gate_of_the_settings_decides(bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for rule, promoted in (("never", False), ("always", True)):
        monkeypatch.setenv("GRAFT_GATE", rule)
        result = run_worker(config_of(bert.spec, tmp_path, rule, promote=True), tmp_path)
        assert result["promoted"] is promoted and result["card"]["gate"]["rule"] == rule


def test_the_card_is_json_that_a_page_can_show(bert: Trained) -> None:
    version: Version = bert.first
    found: dict[str, Any] = files.read_json(version.path / "card.json")
    assert found == version.card and found["metric"] == "accuracy"
