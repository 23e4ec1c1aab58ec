"""training/publish/card.py: corrections count as learned by the label itself, or by texts that say the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks import Columns, TabSpec
from training.config import TrainConfig
from training.data.tokens import Encoded
from training.publish.card import count_right, held_back, tried
from training.publish.evaluate import ANSWERS_WRITTEN, Outcome, Trial

LABELS = TabSpec("tab", "base", "text-classification", Columns(text="text", target="label"))
TEXTS = TabSpec("tab", "base", "causal-lm", Columns(text="text", target="summary"), "Sum up: {text}")


def trial(targets: list[str], labels: list[str]) -> Trial:
    """Corrections that a model was asked about; no model and no tokens are needed to count."""
    config = TrainConfig.for_tab(LABELS if labels else TEXTS, Path("data"), "name")
    rows: list[Any] = [{"text": f"text {i}", "target": target} for i, target in enumerate(targets)]
    return Trial(Encoded([], rows, 0), None, labels, config)  # type: ignore[arg-type]


def answered(*answers: str) -> Outcome:
    return Outcome(list(answers), np.zeros(len(answers)), np.ones(len(answers)))


@pytest.mark.parametrize(("answers", "right"), [("aba", 3), ("aaa", 2), ("bab", 0)])
def test_labels_are_right_or_wrong(answers: str, right: int) -> None:
    taught = trial(["a", "b", "a"], ["a", "b"])
    assert tried(taught) == 3 and count_right(taught, answered(*answers)) == right


def test_texts_may_differ_in_a_word() -> None:
    said = "The path opens in May and is five kilometres long."
    taught = trial([said] * 3, [])
    near, other = said.replace("is five", "will be five"), "Nothing was decided about the tax office."
    assert count_right(taught, answered(said, near, other)) == 2


def test_of_texts_the_first_are_tried() -> None:
    many = ANSWERS_WRITTEN + 3
    taught = trial(["the same words"] * many, [])
    assert tried(taught) == ANSWERS_WRITTEN == count_right(taught, answered(*["the same words"] * many))
    assert tried(replace(taught, labels=["a", "b"])) == many


def test_what_could_be_compared_on_nothing_else_waits_for_a_person() -> None:
    card = {"gate": {"pass": True, "rule": "not-worse", "why": "accuracy"}, "rows": []}
    held = held_back(card)
    assert held["alone"] and held["gate"]["pass"] is False and "learned from these" in held["gate"]["why"]
    assert card["gate"]["pass"] is True
