"""Tests of training/data/split.py."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import split as module
from training.data.rows import Row, question_of
from training.data.split import MOST_HELD_OUT
from training.data.table import text_digest

ROWS = st.lists(
    st.builds(lambda text, target: {"text": str(text), "target": target}, st.integers(0, 60), st.sampled_from("abcde")),
    max_size=80,
)
FRACTIONS, SEEDS = st.floats(0.01, 0.9), st.integers(0, 3)


def split(
    rows: list[Row], fraction: float, seed: int, by_label: bool, most: int = MOST_HELD_OUT
) -> tuple[list[Row], list[Row]]:
    """Return rows to train on and rows held out."""
    texts = np.array([text_digest(seed, question_of(row)) for row in rows], np.uint64)
    names = sorted({row["target"] for row in rows}) if by_label else []
    labels = np.array([names.index(row["target"]) for row in rows], np.uint16) if by_label else None
    held = module.split(texts, labels, fraction, most)
    train, out = ([row for row, is_held in zip(rows, held, strict=True) if is_held == side] for side in (False, True))
    return train, out


def by_the_row(rows: list[Row], fraction: float, seed: int, by_label: bool, limit: int) -> list[Row]:
    """Return the rows held out by the same rule, one row and one text at a time."""
    texts, strata = defaultdict(list), defaultdict(list)
    for index, row in enumerate(rows):
        texts[question_of(row).strip()].append(index)
    for text, members in texts.items():
        label = min(rows[index]["target"] for index in members) if by_label else ""
        strata[label].append(((text_digest(seed, text) >> 16) / 2**48, members))
    chosen = []
    for _, groups in sorted(strata.items()):
        total = sum(len(members) for _, members in groups)
        least = total * fraction / 2 if total >= 5 else 0
        most = min(max(total * fraction * 2, 1), total // 2)
        held: list[tuple[float, list[int]]] = []
        for place, members in sorted(groups):
            count = sum(len(m) for _, m in held)
            if (place < fraction or count < least) and count + len(members) <= most:
                held.append((place, members))
        chosen += [(i > 0, group) for i, group in enumerate(held)]
    if not chosen:
        every = [(len(groups) == 1, group) for groups in strata.values() for group in groups]
        chosen = sorted(choice for choice in every if len(choice[1][1]) * 2 <= len(rows))[:1]
    kept: set[int] = set()
    for _, (_, members) in sorted(chosen):
        kept |= set(members) if len(kept) + len(members) <= limit else set()
    return [rows[index] for index in sorted(kept)]


def many(count: int, labels: int = 2) -> list[Row]:
    return [{"text": f"text {i}", "target": f"label {i % labels}"} for i in range(count)]


@settings(max_examples=200, deadline=None)
@given(ROWS, FRACTIONS, SEEDS, st.booleans(), st.randoms(use_true_random=False))
def test_a_text_is_on_one_side_whatever_the_order_of_rows(
    rows: list[Row], fraction: float, seed: int, by_label: bool, shuffler: random.Random
):
    train, held = split(rows, fraction, seed, by_label)
    assert sorted(map(str, train + held)) == sorted(map(str, rows)) and len(held) <= len(rows) / 2
    assert not {question_of(row) for row in train} & {question_of(row) for row in held}
    shuffler.shuffle(rows)
    assert Counter(map(str, split(rows, fraction, seed, by_label)[1])) == Counter(map(str, held))


@settings(max_examples=300, deadline=None)
@given(ROWS, FRACTIONS, SEEDS, st.booleans(), st.sampled_from([3, 1000]))
def test_the_split_is_that_of_the_rule_applied_row_by_row(
    rows: list[Row], fraction: float, seed: int, by_label: bool, limit: int
):
    assert split(rows, fraction, seed, by_label, limit)[1] == by_the_row(rows, fraction, seed, by_label, limit)


@settings(max_examples=50, deadline=None)
@given(st.integers(200, 800), st.integers(0, 800), st.floats(0.05, 0.4), SEEDS)
def test_added_rows_move_no_text(first: int, more: int, fraction: float, seed: int):
    rows = many(first + more)
    random.Random(seed).shuffle(rows)
    held = [row for row in rows if text_digest(seed, row["text"]) / 2**64 < fraction]
    for some in (rows[:first], rows):
        share = len(set(map(question_of, some)) & set(map(question_of, held))) / len(some)
        if fraction / 2 <= share <= min(fraction * 2, 0.5):  # else the rule corrects
            assert split(some, fraction, seed, False)[1] == [row for row in some if row in held]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcde"), min_size=2, max_size=80), FRACTIONS, SEEDS)
def test_a_label_of_five_rows_has_one_held_out(labels: list[str], fraction: float, seed: int):
    rows = [{"text": f"text {i}", "target": label} for i, label in enumerate(labels)]
    train, held = split(rows, fraction, seed, True)
    kept, out = Counter(row["target"] for row in train), Counter(row["target"] for row in held)
    assert held
    for label, count in Counter(labels).items():
        assert kept[label] >= count / 2 or len(rows) == len(set(labels))
        assert out[label] >= (count >= 5)


@pytest.mark.parametrize(
    ("count", "labels", "fraction", "least", "most"),
    [(20, 2, 0.2, 2, 8), (100, 2, 0.1, 5, 20), (1000, 2, 0.2, 100, 400), (300, 100, 0.1, 15, 60)],
)
def test_about_the_fraction_is_held_out_and_depends_on_the_seed(
    count: int, labels: int, fraction: float, least: int, most: int
):
    found = [split(many(count, labels), fraction, seed, True)[1] for seed in range(20)]
    assert all(least <= len(held) <= most for held in found) and found[0] != found[1]


def test_the_most_held_out_rows_have_some_of_each_label():
    rows = many(20_000, labels=2) + [{"text": f"rare {i}", "target": f"rare {i % 40}"} for i in range(200)]
    held = split(rows, 0.3, 0, True)[1]
    assert MOST_HELD_OUT * 0.8 <= len(held) <= MOST_HELD_OUT
    assert len({row["target"] for row in held}) == 42


def test_few_rows_are_split_and_the_only_row_of_a_label_is_trained_on():
    assert split([], 0.2, 0, True) == ([], [])
    assert split(many(1), 0.9, 0, False) == (many(1), [])
    assert len(split(many(2), 0.2, 0, True)[1]) == 1
    rows = [*many(20), {"text": "alone", "target": "rare"}]
    assert all(rows[-1] in split(rows, 0.5, seed, True)[0] for seed in range(50))
