"""training/publish/other_base.py: what answers now is measured on its own base, or the gate waits for a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import loading
from store.adapters import BASE, AdapterStore, Version
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.training_helpers import config_of, run_worker, train

EXACT = {"precision": "float32"}
"""In 16 bits, words that random weights find equally likely change places with the company that a row has."""


@pytest.mark.parametrize(("kind", "family"), [("bert", "roberta"), ("llama", "t5")])
def test_a_live_version_of_another_base_is_measured_on_it(
    kind: str, family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    trained: Trained = request.getfixturevalue(kind)
    before = train(trained.spec, tmp_path, "before", **EXACT)
    AdapterStore(tmp_path).promote(trained.spec.name, before.ref)
    found = train(trained.spec, tmp_path, "after", **EXACT, model=str(tiny.make(family, tmp_path / "base"))).card
    assert found["live_ref"] == "before@1" and found["no_live"] is None and "(before@1)" in found["gate"]["why"]
    wanted = {row["text"]: row["new"] for row in before.card["rows"]}
    assert {row["text"]: row["live"] for row in found["rows"]} == wanted, "it answers as on its own card"
    if kind == "bert":
        assert found["live"] == pytest.approx(before.card["new"], abs=1e-4)
    else:
        # The same nats, counted in other tokens.
        assert found["live"]["loss"] > 0 and found["live"]["rouge_l"] == pytest.approx(before.card["new"]["rouge_l"])


@pytest.mark.parametrize(("kind", "family"), [("bert", "distilbert"), ("llama", "gpt2")])
def test_where_nothing_is_live_the_tabs_own_base_is_what_answers(
    kind: str, family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    trained: Trained = request.getfixturevalue(kind)
    AdapterStore(tmp_path).promote(trained.spec.name, BASE)  # not the version that ships
    own = train(trained.spec, tmp_path, "own", **EXACT).card
    found = train(trained.spec, tmp_path, "other", **EXACT, model=str(tiny.make(family, tmp_path / "base"))).card
    assert found["no_live"] is None and found["live_ref"] == Path(trained.spec.model).name
    assert {row["text"]: row["live"] for row in found["rows"]} == {row["text"]: row["base"] for row in own["rows"]}


@pytest.mark.parametrize(("rule", "passes"), [("not-worse", False), ("better", False), ("always", True)])
def test_what_cannot_be_measured_waits_for_a_person(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, passes: bool
) -> None:
    before: Version = train(bert.spec, tmp_path, "before")
    AdapterStore(tmp_path).promote(bert.spec.name, before.ref)
    monkeypatch.setattr(loading, "SPARE", 10**15)  # of any memory, a GPU's too
    monkeypatch.setenv("GRAFT_GATE", rule)
    config = config_of(bert.spec, tmp_path, "after", promote=True, model=str(tiny.make("roberta", tmp_path / "base")))
    result = run_worker(config, tmp_path)
    assert result["state"] == "done", result
    found = result["card"]
    assert found["live"] is None and found["no_live"]["why"] == "elsewhere"
    assert "no room for" in found["no_live"]["detail"] and "could not be measured" in found["gate"]["why"]
    assert found["gate"]["pass"] is result["promoted"] is passes
