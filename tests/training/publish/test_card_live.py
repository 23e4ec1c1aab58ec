"""card.py: the live version's part, as a second adapter on the trained net, with its own prompt and labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel

from models.loading import load_model
from store.adapters import AdapterStore
from tasks import TASKS, Task, task_for
from tests.conftest import Trained
from tests.helpers.training_helpers import config_of, run_worker, train
from tests.helpers.versions import copy_of, tensors
from tests.training.publish.test_evaluate import trial_of
from training.data.tokens import Encoded
from training.publish import card


@pytest.fixture(scope="module")
def home(bert: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose tab is live with `one@1`."""
    folder = tmp_path_factory.mktemp("cards")
    train(bert.spec, folder, "one")
    AdapterStore(folder).promote("classification", "one@1")
    return folder


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
    with bert.load().base.slots.pin(found):  # the fingerprint agrees
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
