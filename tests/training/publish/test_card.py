"""training/publish/card.py: before and after on the same rows, the live version's part, and the gate, both ways."""

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
from training.publish import card, evaluate, gate

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


BASE, LIVE, NEW = ["a", "a", "b", "b"], ["a", "b", "b", "b"], ["a", "a", "a", "b"]
TARGETS = ["a", "a", "b", "a"]


@pytest.mark.parametrize(
    ("live", "changes"),
    [(None, ["", "", "broken", ""]), (LIVE, ["", "fixed", "broken", ""])],
    ids=["against the base", "against the live version"],
)
def test_rows_change_against_what_answered_before(live: list[str] | None, changes: list[str]) -> None:
    named = {"base": BASE, **({"live": live} if live else {}), "new": NEW}
    contenders = {name: predictions(answers) for name, answers in named.items()}
    rows = card._rows(rows_alone(TARGETS, ["a", "b"]), contenders, "live" if live else "base")
    assert {row["text"]: row["change"] for row in rows} == {f"row {i}": change for i, change in enumerate(changes)}
    order = ["broken", "fixed", ""]
    assert [row["change"] for row in rows] == sorted((row["change"] for row in rows), key=order.index)
    for row in rows:
        i = int(row["text"][-1])
        assert (row["base"], row["live"], row["new"]) == (BASE[i], live[i] if live else "", NEW[i])


def test_rows_of_text_are_better_or_worse_by_their_loss() -> None:
    contenders = {
        "base": predictions(["x", "y", "", ""], 9, 9, 9, 9),
        "live": predictions(["x", "y", "", ""], 2, 2, 3, 3),
        "new": predictions(["a", "b", "", ""], 1, 3, 3, 1),
    }
    rows = card._rows(rows_alone(["p", "q", "r", "s"], []), contenders, "live")
    changes = [("q", "worse"), ("p", "better"), ("r", ""), ("s", "better")]
    assert [(row["target"], row["change"]) for row in rows] == changes, "with answers first, the worst of them first"
    assert rows[0]["loss"] == {"base": 9, "live": 2, "new": 3}


def test_metrics_count_the_rows_of_the_card(bert: Trained) -> None:
    found = bert.first.card
    rows = found["rows"]
    assert found == files.read_json(bert.first.path / "card.json") and found["metric"] == "accuracy"
    assert found["held_out"] == len(rows) > 0
    assert found["live"] is None and found["live_ref"] is None
    for contender in ("base", "new"):
        right = sum(row[contender] == row["target"] for row in rows)
        assert found[contender]["accuracy"] == pytest.approx(right / len(rows))
    assert found["fixed"] == sum(r["base"] != r["target"] == r["new"] for r in rows)
    assert found["broken"] == sum(r["new"] != r["target"] == r["base"] for r in rows)
    assert found["gate"]["pass"] == (found["new"]["accuracy"] >= found["base"]["accuracy"])


def test_the_base_of_a_classifier_answers_by_meaning(bert: Trained) -> None:
    loaded = bert.load()
    for row in bert.first.card["rows"]:
        scores = loaded.classifier.zero_shot(row["text"], ["0", "1"])
        assert row["base"] == max(scores, key=scores.__getitem__)


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
    found, tokenizer = (
        run_worker(replace(config, data=str(data)), tmp_path)["card"],
        AutoTokenizer.from_pretrained(folder),
    )
    assert found["base_by"] == "head" and len(found["rows"]) >= 5
    for row in found["rows"]:
        logits = net.eval()(**tokenizer(row["text"], return_tensors="pt")).logits
        assert row["base"] == names[int(logits.argmax())].lower()


def certainty_of(
    evaluation: evaluate.Evaluation, base: evaluate.Predictions, new: evaluate.Predictions
) -> dict[str, Any]:
    contenders = {"base": base, "new": new}
    of = {name: evaluation.metrics(found) for name, found in contenders.items()}
    return card._certainty(evaluation, card._rows(evaluation, contenders, "base"), of, "base")


def test_a_difference_is_sure_only_if_the_exact_test_agrees() -> None:
    """Four of 25 rows fixed: resamples always have some of them, but four coins may all fall on one side."""
    targets = ["a"] * 25
    found = {
        fixed: certainty_of(
            rows_alone(targets, ["a", "b"]), predictions(["b"] * fixed + targets[fixed:]), predictions(targets)
        )
        for fixed in (0, 4, 8)
    }
    assert found[4]["intervals"]["accuracy"]["difference"][0] > 0 and found[4]["p"] == pytest.approx(0.125)
    assert [certainty["sure"] for certainty in found.values()] == [False, False, True]
    assert found[0]["least"] == 6 / 25


@pytest.mark.parametrize(("rows", "sure"), [(5, False), (6, True)])
def test_five_texts_are_too_few_to_be_sure(rows: int, sure: bool) -> None:
    base, new = (predictions([""] * rows, *[loss] * rows) for loss in (9.0, 1.0))
    assert certainty_of(rows_alone(["a"] * rows, []), base, new)["sure"] is sure


def test_confusion_matrices_are_left_out_for_very_many_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    contenders = {"base": predictions(BASE), "new": predictions(NEW)}
    found = card._classes(rows_alone(TARGETS, ["a", "b", "c"]), contenders)
    assert sorted(found["labels"]) == ["a", "b", "c"]
    at = {label: i for i, label in enumerate(found["labels"])}
    assert found["confusion"]["new"][at["a"]][at["b"]] == 1 and found["confusion"]["new"][at["b"]][at["a"]] == 1
    assert sum(map(sum, found["confusion"]["new"])) == 4
    assert [row["label"] for row in found["per_class"]["new"]] == found["labels"]
    monkeypatch.setattr(card, "LARGEST_MATRIX", 2)
    assert card._classes(rows_alone(TARGETS, ["a", "b", "c"]), contenders)["confusion"] is None


def test_a_version_goes_live_only_where_the_gate_of_the_settings_lets_it(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = AdapterStore(tmp_path)
    for rule, promoted in (("never", False), ("always", True)):
        monkeypatch.setenv("GRAFT_GATE", rule)
        result = run_worker(config_of(bert.spec, tmp_path, rule, promote=True), tmp_path)
        assert result["promoted"] is promoted and result["card"]["gate"]["rule"] == rule
        live = store.live("classification")
        assert (live.ref if live else None) == (result["version"] if promoted else None)
    last = store.history("classification")[-1]
    assert (last["why"], last["who"]) == (result["card"]["gate"]["why"], "gate of run always")


def test_a_version_compared_on_its_own_rows_waits_for_a_person() -> None:
    found = {"gate": {"pass": True, "rule": "not-worse", "why": "accuracy"}, "rows": []}
    held = gate.hold_back(found)
    assert held["alone"] and held["gate"]["pass"] is False and "learned from these" in held["gate"]["why"]
    assert found["gate"]["pass"] is True


@pytest.fixture(scope="module")
def live_home(bert: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose tab is live with `one@1`."""
    folder = tmp_path_factory.mktemp("cards")
    train(bert.spec, folder, "one")
    AdapterStore(folder).promote("classification", "one@1")
    return folder


def test_the_live_version_is_compared_on_the_same_rows(bert: Trained, live_home: Path) -> None:
    first = AdapterStore(live_home).get("one@1").card
    found = train(bert.spec, live_home, "two", learning_rate=1e-3).card
    assert found["live_ref"] == "one@1"
    assert found["live"] == pytest.approx(first["new"]) and found["no_live"] is None
    assert {r["text"]: r["live"] for r in found["rows"]} == {r["text"]: r["new"] for r in first["rows"]}
    assert "(one@1)" in found["gate"]["why"]


def test_a_live_version_of_other_labels_is_not_compared(bert: Trained, live_home: Path) -> None:
    config = config_of(bert.spec, live_home, "other")
    Path(config.data).write_text(Path(config.data).read_text().replace(",1\n", ",2\n"))
    found = run_worker(config, live_home)["card"]
    assert found["live"] is None and found["live_ref"] is None
    assert found["no_live"] == {"ref": "one@1", "why": "labels", "detail": ""}
    assert "(base)" in found["gate"]["why"]


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
        monkeypatch.setattr("peft.peft_model.set_peft_model_state_dict", _broken)
    AdapterStore(tmp_path).promote("classification", live.ref)
    found = train(bert.spec, tmp_path, "next", seed=3)
    assert found.card["live"] is None
    assert found.card["no_live"]["why"] == "refused" and found.card["no_live"]["ref"] == live.ref
    assert fault != "its bytes" or "changed since it was published" in found.card["no_live"]["detail"]
    assert {path.name for path in found.path.iterdir()} == {path.name for path in bert.first.path.iterdir()}
    monkeypatch.undo()
    with bert.load().base.slots.pin(found):  # the fingerprint agrees
        pass


def _broken(*_: object, **__: object) -> None:
    raise RuntimeError("half a registration")


@pytest.mark.parametrize("quantize", ["none", "4bit", "8bit"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_live_version_beside_the_new_one_answers_as_on_a_base_of_its_own(
    family: str, quantize: str, request: pytest.FixtureRequest
) -> None:
    trained: Trained = request.getfixturevalue(family)
    task = task_for(trained.first.manifest["task"], trained.model.config)
    head = {"num_labels": len(trained.first.labels), "ignore_mismatched_sizes": True} if trained.first.labels else {}
    nets = []
    for version in (trained.second, trained.first):
        torch.manual_seed(0)
        bare, _ = load_model(trained.model, task.auto_class, quantize, **head)
        nets.append(PeftModel.from_pretrained(bare, version.path, is_trainable=version is trained.second))
    net, alone = nets
    rows = [{"text": f"where is parcel {i}", "target": str(i % 2)} for i in range(7)]
    evaluation = evaluation_of(trained, rows, trained.first.labels)
    baseline = card.admit(net, evaluation, trained.first, trained.model, task)
    before = evaluation.predict(net)
    baseline = card.predict_live(net, baseline)
    wanted = evaluation.predict(alone)
    assert baseline.predictions and baseline.predictions.answers == wanted.answers
    assert baseline.predictions.loss == pytest.approx(wanted.loss, abs=1e-4)
    assert np.abs(baseline.predictions.loss - before.loss).max() > 1e-3, "they differ"
    card.dismiss(net)
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
    found = card.admit(None, evaluation, other, llama.model, TASKS["causal-lm"])  # type: ignore[arg-type]
    assert (found.why, found.predictions, found.ref) == ("rows", None, other.ref)
