"""training/card.py: before and after on the same rows, what changed, and the gate, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from store import files
from store.adapters import AdapterStore, Version
from tests import tiny
from tests.conftest import Trained
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
    found = card.gate(metric, {metric: was, "other": 0}, {metric: now, "other": 0}, "tickets@3")
    assert found["pass"] is passes
    assert found["why"].startswith(f"{metric} {was:.3f} (tickets@3) -> ")


def trial(targets: list[str], labels: list[str]) -> Trial:
    rows = [{"text": f"row {i}", "target": target} for i, target in enumerate(targets)]
    config = TrainConfig(
        name="a", plugin="p", model="m", task="text-classification", data="d",
        columns={"text": "text", "target": "target"},
    )  # fmt: skip
    return Trial(Encoded([], rows, 0), None, labels, config)  # type: ignore[arg-type]


def outcome(answers: list[str]) -> Outcome:
    return Outcome({"accuracy": 0}, answers)


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
    contenders = {"base": outcome(BASE), "live": outcome(live) if live else None, "new": outcome(NEW)}
    rows = card._rows(trial(TARGETS, ["a", "b"]), contenders)
    assert {row["text"]: row["change"] for row in rows} == changes
    order = ["broken", "fixed", ""]
    assert [row["change"] for row in rows] == sorted((row["change"] for row in rows), key=order.index)
    for row in rows:
        i = int(row["text"][-1])
        assert (row["base"], row["live"], row["new"]) == (BASE[i], live[i] if live else "", NEW[i])


def test_written_answers_are_neither_fixed_nor_broken() -> None:
    contenders = {"base": outcome(["x"]), "live": None, "new": outcome(["a"])}
    assert card._rows(trial(["a"], []), contenders)[0]["change"] == ""


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
    assert found["live"] == pytest.approx(first["new"])
    assert {r["text"]: r["live"] for r in found["rows"]} == {r["text"]: r["new"] for r in first["rows"]}
    assert "(one@1)" in found["gate"]["why"]


def test_a_live_version_of_other_labels_is_not_compared(bert: Trained, home: Path) -> None:
    config = config_of(bert.spec, home, "other")
    Path(config.data).write_text(Path(config.data).read_text().replace(",1\n", ",2\n"))
    result = run_worker(config, home)
    assert result["state"] == "done", result
    assert result["card"]["live"] is None and result["card"]["live_ref"] is None
    assert "(base)" in result["card"]["gate"]["why"]


def test_a_live_version_of_another_base_is_not_compared(home: Path, tmp_path: Path) -> None:
    spec = spec_of("bert", tiny.make("bert", tmp_path / "base", seed=7))
    found = train(spec, home, "elsewhere").card
    assert found["live"] is None and "(base)" in found["gate"]["why"]


def test_a_damaged_live_version_does_not_stop_a_run(bert: Trained, tmp_path: Path) -> None:
    live = train(bert.spec, tmp_path, "before")
    AdapterStore(tmp_path).promote("classification", "before@1")
    weights = live.path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    assert train(bert.spec, tmp_path, "next").card["live"] is None


def test_promotion_asks_the_gate(bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = AdapterStore(tmp_path)
    for name, passes in (("bad", False), ("good", True)):
        monkeypatch.setattr(card, "gate", lambda *_, passes=passes: {"pass": passes, "why": "as told"})
        result = run_worker(config_of(bert.spec, tmp_path, name, promote=True), tmp_path)
        assert result["promoted"] is passes
        live = store.live("classification")
        assert (live.ref if live else None) == (result["version"] if passes else None)
    assert store.history("classification")[-1]["why"] == "as told"


def test_the_readme_is_a_model_card(bert: Trained) -> None:
    text = (bert.first.path / "README.md").read_text()
    assert text.startswith("---\nbase_model: ") and "library_name: peft" in text
    figures = bert.first.card
    assert f"| accuracy | {figures['base']['accuracy']:.3f} | {figures['new']['accuracy']:.3f} |" in text


def test_the_card_is_json_that_a_page_can_show(bert: Trained) -> None:
    version: Version = bert.first
    found: dict[str, Any] = files.read_json(version.path / "card.json")
    assert found == version.card and found["metric"] == "accuracy"
