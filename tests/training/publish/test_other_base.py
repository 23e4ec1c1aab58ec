"""training/publish/other_base.py: a baseline is measured on its own base, or the gate waits for a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import loading
from store.adapters import BASE, AdapterStore
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.training_helpers import config_of, run_worker, train

EXACT = {"precision": "float32"}
"""In 16 bits, a row's answer from random weights depends on the other rows of its batch."""


@pytest.mark.parametrize(("trained", "family"), [("bert", "roberta"), ("llama", "t5")], indirect=["trained"])
def test_a_live_version_of_another_base_is_measured_on_it(trained: Trained, family: str, tmp_path: Path) -> None:
    before = train(trained.spec, tmp_path, "before", **EXACT)
    AdapterStore(tmp_path).promote(trained.spec.name, before.ref)
    found = train(trained.spec, tmp_path, "after", **EXACT, model=str(tiny.make(family, tmp_path / "base"))).card
    assert found["live_ref"] == "before@1" and found["no_live"] is None and "(before@1)" in found["gate"]["why"]
    wanted = {row["text"]: row["new"] for row in before.card["rows"]}
    assert {row["text"]: row["live"] for row in found["rows"]} == wanted, "it answers as on its own card"
    if trained.first.labels:
        assert found["live"] == pytest.approx(before.card["new"], abs=1e-4)
    else:
        # The same nats, counted in other tokens.
        assert found["live"]["loss"] > 0 and found["live"]["rouge_l"] == pytest.approx(before.card["new"]["rouge_l"])


@pytest.mark.parametrize(("trained", "family"), [("bert", "distilbert"), ("llama", "gpt2")], indirect=["trained"])
def test_the_tabs_own_base_is_the_baseline_where_nothing_is_live(trained: Trained, family: str, tmp_path: Path) -> None:
    AdapterStore(tmp_path).promote(trained.spec.name, BASE)  # not the version that ships
    own = train(trained.spec, tmp_path, "own", **EXACT).card
    found = train(trained.spec, tmp_path, "other", **EXACT, model=str(tiny.make(family, tmp_path / "base"))).card
    assert found["no_live"] is None and found["live_ref"] == Path(trained.spec.model).name
    assert {row["text"]: row["live"] for row in found["rows"]} == {row["text"]: row["base"] for row in own["rows"]}


@pytest.mark.parametrize(("rule", "passes"), [("not-worse", False), ("better", False), ("always", True)])
def test_a_baseline_that_cannot_be_measured_leaves_the_decision_to_a_person(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, passes: bool
) -> None:
    store = AdapterStore(tmp_path)
    store.promote(bert.spec.name, train(bert.spec, tmp_path, "before").ref)
    monkeypatch.setattr(loading, "MEMORY_RESERVE", 10**15)  # of any memory, a GPU's too
    monkeypatch.setenv("GRAFT_GATE", rule)
    config = config_of(bert.spec, tmp_path, "after", promote=True, model=str(tiny.make("roberta", tmp_path / "base")))
    result = run_worker(config, tmp_path)
    assert result["state"] == "done", result
    found = result["card"]
    assert found["live"] is None and found["no_live"]["why"] == "elsewhere"
    assert "no room for" in found["no_live"]["detail"] and "could not be measured" in found["gate"]["why"]
    assert found["gate"]["rule"] == rule and found["gate"]["pass"] is result["promoted"] is passes
    last = store.history(bert.spec.name)[-1]
    assert last["version"] == (result["version"] if passes else "before@1")
    assert not passes or (last["why"], last["who"]) == (found["gate"]["why"], "gate of run after")
