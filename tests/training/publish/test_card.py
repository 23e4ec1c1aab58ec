"""training/publish/card.py: base, live version and new version on the same rows, and the decision of the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from models.loading import load_model
from settings import GATES
from store import files
from store.adapters import AdapterStore
from tasks import TASKS, task_for
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.evaluations import evaluation_of, predictions, rows_alone
from tests.helpers.training_helpers import config_of, run_worker, spec_of, train
from tests.helpers.versions import copy_of, tensors
from training.data.tokens import Encoded
from training.loop import lora
from training.publish import card, evaluate, gate

pytestmark = pytest.mark.slow

NAN = float("nan")


@pytest.mark.parametrize("rule", GATES)
@pytest.mark.parametrize("metric", ["accuracy", "loss"])
@pytest.mark.parametrize("change", [0.1, 0.0, -0.1, NAN], ids=["better", "same", "worse", "not a number"])
@pytest.mark.parametrize("sure", [True, False])
def test_the_gate_decides_by_its_rule(rule: str, metric: str, change: float, sure: bool) -> None:
    now = 0.5 + (change if metric == "accuracy" else -change)
    found = gate.decide(rule, metric, {metric: 0.5, "other": 0}, {metric: now, "other": 0}, "tickets@3", sure)
    passes = {"not-worse": change >= 0, "better": change >= 0 and sure, "always": change == change, "never": False}
    assert found["pass"] is passes[rule] and found["rule"] == rule
    assert found["why"] == f"{metric} 0.500 (tickets@3) -> {now:.3f}; gate: {rule}"
    alone = gate.decide(rule, metric, {metric: 0.5}, {metric: now}, "tickets@3", sure, "Nothing was compared")
    assert alone["pass"] is (rule == "always" and change == change)
    assert alone["why"] == f"Nothing was compared; gate: {rule}"


BASE, LIVE, NEW = ["a", "a", "b", "b"], ["a", "b", "b", "b"], ["a", "a", "a", "b"]
TARGETS = ["a", "a", "b", "a"]


@pytest.mark.parametrize(
    ("before", "changes"), [("base", ["", "", "broken", ""]), ("live", ["", "fixed", "broken", ""])]
)
def test_rows_of_labels_are_fixed_or_broken_against_the_baseline(before: str, changes: list[str]) -> None:
    answers = {"base": BASE, "live": LIVE, "new": NEW}
    if before == "base":
        del answers["live"]
    given = {name: predictions(labels) for name, labels in answers.items()}
    rows = card._rows(rows_alone(TARGETS, ["a", "b"]), given, before)
    order = ["broken", "fixed", ""]
    assert [row["change"] for row in rows] == sorted(changes, key=order.index)
    for row in rows:
        i = int(row["text"].removeprefix("row "))
        assert row["change"] == changes[i] and row["target"] == TARGETS[i]
        assert {name: row[name] for name in ("base", "live", "new")} == {"live": ""} | {
            n: answers[n][i] for n in answers
        }


def test_rows_of_text_are_better_or_worse_by_their_loss() -> None:
    given = {
        "base": predictions(["x", "y", "", ""], 9, 9, 9, 9),
        "live": predictions(["x", "y", "", ""], 2, 2, 3, 3),
        "new": predictions(["a", "b", "", ""], 1, 3, 3, 1),
    }
    rows = card._rows(rows_alone(["p", "q", "r", "s"], []), given, "live")
    changes = [("q", "worse"), ("p", "better"), ("r", ""), ("s", "better")]
    assert [(row["target"], row["change"]) for row in rows] == changes, "with answers first, the worst of them first"
    assert rows[0]["loss"] == {"base": 9, "live": 2, "new": 3}


def test_metrics_count_the_rows_of_the_card(bert: Trained) -> None:
    found, classifier = bert.first.card, bert.load().classifier
    rows = found["rows"]
    assert found == files.read_json(bert.first.path / "card.json") and found["metric"] == "accuracy"
    assert found["held_out"] == len(rows) > 0 and found["live"] is None and found["live_ref"] is None
    for model in ("base", "new"):
        assert found[model]["accuracy"] == pytest.approx(sum(r[model] == r["target"] for r in rows) / len(rows))
    assert found["fixed"] == sum(r["base"] != r["target"] == r["new"] for r in rows)
    assert found["broken"] == sum(r["new"] != r["target"] == r["base"] for r in rows)
    assert found["gate"]["pass"] == (found["new"]["accuracy"] >= found["base"]["accuracy"])
    scores = [classifier.zero_shot(row["text"], ["0", "1"]) for row in rows]
    assert [row["base"] for row in rows] == [max(s, key=s.__getitem__) for s in scores], "the base answers by meaning"


def test_a_base_with_a_head_for_these_labels_answers_with_it(tmp_path: Path) -> None:
    """Its labels are in another order and other letters; it answers as transformers says."""
    folder = tiny.make("distilbert", tmp_path / "base")
    torch.manual_seed(1)
    names = {0: "POSITIVE", 1: "Neutral", 2: "negative"}
    net = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, id2label=names)
    net.classifier.weight.data.normal_(0, 2)
    net.save_pretrained(folder)
    labels = ["negative", "neutral", "positive"]
    data = tmp_path / "mood_rows.csv"
    data.write_text("text,label\n" + "".join(f"row {'number ' * (i % 5)}{i},{labels[i % 3]}\n" for i in range(30)))
    config = config_of(spec_of("distilbert", folder), tmp_path, "moods")
    found = run_worker(replace(config, data=str(data)), tmp_path)["card"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert found["base_by"] == "head" and len(found["rows"]) >= 5
    for row in found["rows"]:
        logits = net.eval()(**tokenizer(row["text"], return_tensors="pt")).logits
        assert row["base"] == names[int(logits.argmax())].lower()


def certainty_of(
    evaluation: evaluate.Evaluation, base: evaluate.Predictions, new: evaluate.Predictions
) -> dict[str, Any]:
    given = {"base": base, "new": new}
    measures = {name: evaluation.metrics(found) for name, found in given.items()}
    return gate.certainty(evaluation, card._rows(evaluation, given, "base"), measures, "base")


@pytest.mark.parametrize(("fixed", "sure"), [(0, False), (4, False), (8, True)])
def test_a_difference_of_labels_is_sure_only_if_the_exact_test_agrees(fixed: int, sure: bool) -> None:
    """Resamples of 25 rows always have some of the four fixed ones, but four coins may all fall on one side."""
    targets = ["a"] * 25
    base = predictions(["b"] * fixed + targets[fixed:])
    found = certainty_of(rows_alone(targets, ["a", "b"]), base, predictions(targets))
    assert found["sure"] is sure and (fixed or found["least"] == 6 / 25)
    if fixed == 4:
        assert found["intervals"]["accuracy"]["difference"][0] > 0 and found["p"] == pytest.approx(0.125)


@pytest.mark.parametrize(("rows", "sure"), [(5, False), (6, True)])
def test_a_difference_of_five_texts_is_not_sure(rows: int, sure: bool) -> None:
    base, new = (predictions([""] * rows, *[loss] * rows) for loss in (9.0, 1.0))
    assert certainty_of(rows_alone(["a"] * rows, []), base, new)["sure"] is sure


def test_confusion_matrices_are_left_out_for_very_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, given = rows_alone(TARGETS, ["a", "b", "c"]), {"base": predictions(BASE), "new": predictions(NEW)}
    found = card._classes(rows, given)
    assert sorted(found["labels"]) == ["a", "b", "c"]
    at = {label: i for i, label in enumerate(found["labels"])}
    assert found["confusion"]["new"][at["a"]][at["b"]] == 1 and found["confusion"]["new"][at["b"]][at["a"]] == 1
    assert sum(map(sum, found["confusion"]["new"])) == 4
    assert [row["label"] for row in found["per_class"]["new"]] == found["labels"]
    monkeypatch.setattr(card, "LARGEST_MATRIX", 2)
    assert card._classes(rows, given)["confusion"] is None


def test_the_live_version_is_compared_on_the_same_rows_unless_its_labels_differ(bert: Trained, tmp_path: Path) -> None:
    first = train(bert.spec, tmp_path, "one").card
    AdapterStore(tmp_path).promote("classification", "one@1")
    found = train(bert.spec, tmp_path, "two", learning_rate=1e-3).card
    assert found["live_ref"] == "one@1" and found["no_live"] is None and "(one@1)" in found["gate"]["why"]
    assert found["live"] == pytest.approx(first["new"])
    assert {r["text"]: r["live"] for r in found["rows"]} == {r["text"]: r["new"] for r in first["rows"]}
    config = config_of(bert.spec, tmp_path, "other")
    Path(config.data).write_text(Path(config.data).read_text().replace(",1\n", ",2\n"))
    found = run_worker(config, tmp_path)["card"]
    assert found["live"] is None and found["live_ref"] is None and "(base)" in found["gate"]["why"]
    assert found["no_live"] == {"ref": "one@1", "why": "labels", "detail": ""}


def fail(*_: object, **__: object) -> None:
    raise RuntimeError("half a registration")


@pytest.mark.parametrize("fault", ["its bytes", "its tensors", "PEFT itself"])
def test_a_live_version_that_cannot_be_loaded_does_not_spoil_the_run(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Even where PEFT fails half way, the new version alone is published, and answers as its fingerprint says."""
    live = train(bert.spec, tmp_path, "before")
    if fault == "its bytes":
        weights = live.path / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    elif fault == "its tensors":
        live = copy_of(live, tmp_path, "odd", tensors(lambda held: held.update(odd=torch.ones(1))))
    else:
        monkeypatch.setattr("peft.peft_model.set_peft_model_state_dict", fail)
    AdapterStore(tmp_path).promote("classification", live.ref)
    found = train(bert.spec, tmp_path, "next", seed=3)
    assert found.card["live"] is None
    assert found.card["no_live"]["why"] == "refused" and found.card["no_live"]["ref"] == live.ref
    assert fault != "its bytes" or "changed since it was published" in found.card["no_live"]["detail"]
    assert {path.name for path in found.path.iterdir()} == {path.name for path in bert.first.path.iterdir()}
    monkeypatch.undo()
    with bert.load().base.slots.pin(found):  # the fingerprint agrees
        pass


@pytest.mark.parametrize("quantize", ["none", "4bit", "8bit"])
def test_a_live_version_beside_the_new_one_answers_as_on_a_base_of_its_own(trained: Trained, quantize: str) -> None:
    task, labels = task_for(trained.first.manifest["task"], trained.model.config), trained.first.labels
    nets = []
    for version in (trained.second, trained.first):
        torch.manual_seed(0)
        bare, _ = load_model(trained.model, task.auto_class, quantize, **lora.head_options(labels))
        nets.append(PeftModel.from_pretrained(bare, version.path, is_trainable=version is trained.second))
    net, alone = nets
    rows = [{"text": f"where is parcel {i}", "target": str(i % 2)} for i in range(7)]
    evaluation = evaluation_of(trained, rows, labels)
    baseline = card.load_live(net, evaluation, trained.first, trained.model, task)
    before, wanted = evaluation.predict(net), evaluation.predict(alone)
    found = card.predict_live(net, baseline, trained.first).predictions
    assert found and found.answers == wanted.answers and found.loss == pytest.approx(wanted.loss, abs=1e-4)
    assert np.abs(found.loss - before.loss).max() > 1e-3, "they differ"
    card.unload_live(net)
    again = evaluation.predict(net)
    assert again.answers == before.answers and again.loss == pytest.approx(before.loss, abs=1e-5)
    assert list(net.peft_config) == ["default"] and not [n for n, _ in net.named_parameters() if ".live" in n]


def test_the_live_version_is_asked_with_its_own_prompt(llama: Trained, tmp_path: Path) -> None:
    before = train(llama.spec, tmp_path, "before")
    AdapterStore(tmp_path).promote("summarization", before.ref)
    after = train(replace(llama.spec, prompt="Something else altogether, in one line: {text}"), tmp_path, "after")
    assert after.manifest["prompt"] != before.manifest["prompt"] == "Sum up: {text}"
    wanted = {row["text"]: row for row in before.card["rows"]}
    assert after.card["live_ref"] == before.ref and after.card["live"] == pytest.approx(before.card["new"], abs=1e-4)
    for row in after.card["rows"]:
        assert row["live"] == wanted[row["text"]]["new"]
        assert row["loss"]["live"] == pytest.approx(wanted[row["text"]]["loss"]["new"], abs=1e-3)
    assert after.card["base"]["loss"] != pytest.approx(before.card["base"]["loss"], abs=1e-2)


def test_a_live_version_that_cannot_be_asked_every_row_is_not_compared(
    llama: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = evaluation_of(llama, [{"text": "a", "target": "b"}], [])
    other = replace(llama.first, manifest={**llama.first.manifest, "prompt": "Another: {text}"})
    monkeypatch.setattr(evaluate, "encode_rows", lambda *_: Encoded([], [], 0))
    found = card.load_live(None, evaluation, other, llama.model, TASKS["causal-lm"])  # type: ignore[arg-type]
    assert (found.why, found.predictions, found.ref) == ("rows", None, other.ref)
