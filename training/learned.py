"""Whether corrections were learned: how many of them a model answers right, and what the gate may make of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.evaluation import ANSWERS_WRITTEN, Outcome, Trial, rouge_l

ALIKE = 0.8
"""ROUGE-L from which a text says what it was to say; word for word is more than anybody asks of a summary."""


def tried(taught: Trial) -> int:
    """Of how many corrections the answers are looked at: all labels, the first texts."""
    count = len(taught.held_out.kept)
    return count if taught.labels else min(count, ANSWERS_WRITTEN)


def count_right(taught: Trial, outcome: Outcome) -> int:
    """How many of these are answered as they were corrected."""
    pairs = list(zip(taught.targets, outcome.answers, strict=True))[: tried(taught)]
    return sum(target == answer if taught.labels else rouge_l(target, answer) >= ALIKE for target, answer in pairs)


def held_back(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a version that could be compared only on what it has learned from: a person decides.

    Unless the gate's rule compares nothing anyway.
    """
    gate = card["gate"]
    why = f"No rows but the corrections could be compared, and it has learned from these; gate: {gate['rule']}"
    return {**card, "alone": True, "gate": {**gate, "pass": gate["rule"] == "always" and gate["pass"], "why": why}}
