"""training/card.py: before and after on the same rows, what changed, and the gate, both ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from settings import GATES
from store import files
from store.adapters import AdapterStore, Version
from store.loading import load_model
from tasks import TASKS, Task, task_for
from tests import tiny
from tests.conftest import Trained
from tests.test_evaluation import trial_of
from tests.test_resident import copy_of, tensors
from tests.training_helpers import config_of, run_worker, spec_of, train
from training import card
from training.config import TrainConfig
from training.encoding import Encoded
from training.evaluation import Outcome, Trial


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


@pytest.fixture(scope="module")
def home(bert: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose tab is live with `one@1`."""
    folder = tmp_path_factory.mktemp("cards")
    train(bert.spec, folder, "one")
    AdapterStore(folder).promote("classification", "one@1")
    return folder


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


def test_the_live_version_is_compared_on_the_same_rows(bert: Trained, home: Path) -> None:
    first = AdapterStore(home).get("one@1").card
    found = train(bert.spec, home, "two", learning_rate=1e-3).card
    assert found["live_ref"] == "one@1"
    assert found["live"] == pytest.approx(first["new"]) and found["no_live"] is None
    assert {r["text"]: r["live"] for r in found["rows"]} == {r["text"]: r["new"] for r in first["rows"]}
    assert "(one@1)" in found["gate"]["why"]


def test_a_live_version_of_other_labels_is_not_compared(bert: Trained, home: Path) -> None:
    config = config_of(bert.spec, home, "other")
    Path(config.data).write_text(Path(config.data).read_text().replace(",1\n", ",2\n"))
    result = run_worker(config, home)
    assert result["state"] == "done", result
    assert result["card"]["live"] is None and result["card"]["live_ref"] is None
    assert result["card"]["no_live"] == {"ref": "one@1", "why": "labels", "detail": ""}
    assert "(base)" in result["card"]["gate"]["why"]


def test_a_live_version_of_another_base_is_not_compared(home: Path, tmp_path: Path) -> None:
    spec = spec_of("bert", tiny.make("bert", tmp_path / "base", seed=7))
    found = train(spec, home, "elsewhere").card
    assert found["live"] is None and found["no_live"]["why"] == "base" and "(base)" in found["gate"]["why"]


def test_a_damaged_live_version_does_not_stop_a_run(bert: Trained, tmp_path: Path) -> None:
    live = train(bert.spec, tmp_path, "before")
    AdapterStore(tmp_path).promote("classification", "before@1")
    weights = live.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    found = train(bert.spec, tmp_path, "next")
    assert found.card["live"] is None and found.card["no_live"]["why"] == "refused"
    assert "changed since it was published" in found.card["no_live"]["detail"]


@pytest.mark.parametrize("fault", ["its tensors", "PEFT itself"])
def test_a_live_version_that_cannot_be_loaded_leaves_nothing_behind(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Not even where PEFT fails half way: what is published is the new version alone, and it answers as it was told."""
    live = train(bert.spec, tmp_path, "before")
    if fault == "its tensors":
        live = copy_of(live, tmp_path, "odd", tensors(lambda held: held.update(odd=torch.ones(1))))
    else:
        monkeypatch.setattr("peft.peft_model.set_peft_model_state_dict", _broken)
    AdapterStore(tmp_path).promote("classification", live.ref)
    found = train(bert.spec, tmp_path, "next", seed=3)
    assert found.card["no_live"]["why"] == "refused" and found.card["no_live"]["ref"] == live.ref
    assert {path.name for path in found.path.iterdir()} == {path.name for path in bert.first.path.iterdir()}
    monkeypatch.undo()
    with bert.load().resident.pin(found):  # the fingerprint agrees
        pass


def _broken(*_: object, **__: object) -> None:
    raise RuntimeError("half a registration")


def two_nets(trained: Trained, quantize: str) -> tuple[PeftModel, PeftModel, Task]:
    """A trained net (the second version), and the first one loaded onto a base of its own, as was done before."""
    task = task_for(trained.first.manifest["task"], trained.model.config)
    head = {"num_labels": len(trained.first.labels), "ignore_mismatched_sizes": True} if trained.first.labels else {}
    nets = []
    for version in (trained.second, trained.first):
        torch.manual_seed(0)
        net, _ = load_model(trained.model, task.auto_class, quantize, **head)
        nets.append(PeftModel.from_pretrained(net, version.path, is_trainable=version is trained.second))
    return nets[0], nets[1], task


@pytest.mark.parametrize("quantize", ["none", "4bit", "8bit"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_live_version_beside_the_new_one_answers_as_on_a_base_of_its_own(
    family: str, quantize: str, request: pytest.FixtureRequest
) -> None:
    trained: Trained = request.getfixturevalue(family)
    net, alone, task = two_nets(trained, quantize)
    rows = [{"text": f"where is parcel {i}", "target": str(i % 2)} for i in range(7)]
    tried = trial_of(trained, rows, trained.first.labels)
    rival = card.admit(net, tried, trained.first, trained.model, task)
    before = tried.of(net)
    rival = card.answered(net, rival)
    wanted = tried.of(alone)
    assert rival.outcome and rival.outcome.answers == wanted.answers
    assert rival.outcome.loss == pytest.approx(wanted.loss, abs=1e-4)
    assert np.abs(rival.outcome.loss - before.loss).max() > 1e-3, "they differ"
    card.dismiss(net)
    again = tried.of(net)
    assert again.answers == before.answers and again.loss == pytest.approx(before.loss, abs=1e-5)
    assert list(net.peft_config) == ["default"] and not [n for n, _ in net.named_parameters() if ".live" in n]


def test_the_live_version_is_put_its_own_prompt(llama: Trained, tmp_path: Path) -> None:
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
    monkeypatch.setattr(card, "encode_rows", lambda *_: Encoded([], [], 0))
    tried = trial_of(llama, [{"text": "a", "target": "b"}], [])
    other = replace(llama.first, manifest={**llama.first.manifest, "prompt": "Another: {text}"})
    found = card.admit(None, tried, other, llama.model, TASKS["causal-lm"])  # type: ignore[arg-type]
    assert (found.why, found.outcome, found.ref) == ("rows", None, other.ref)


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
    monkeypatch.setattr(card, "MOST_LABELS", 2)
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
