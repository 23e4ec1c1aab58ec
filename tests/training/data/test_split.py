"""Tests of training/data/split.py: a text is on one side, always the same one, and each label is held out once."""

from __future__ import annotations

import random
from collections import Counter, defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import split as module
from training.data.rows import Row, asked
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
    texts = np.array([text_digest(seed, asked(row)) for row in rows], np.uint64)
    names = sorted({row["target"] for row in rows}) if by_label else []
    labels = np.array([names.index(row["target"]) for row in rows], np.uint16) if by_label else None
    held = module.split(texts, labels, fraction, most)
    train, out = ([row for row, is_held in zip(rows, held, strict=True) if is_held == side] for side in (False, True))
    return train, out


def by_the_row(rows: list[Row], fraction: float, seed: int, by_label: bool, limit: int) -> list[Row]:
    """Return the rows held out by the same rule, one row and one text at a time."""
    texts, strata = defaultdict(list), defaultdict(list)
    for index, row in enumerate(rows):
        texts[asked(row).strip()].append(index)
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
@given(ROWS, FRACTIONS, SEEDS, st.booleans())
def test_parts_hold_every_row_once_and_share_no_text(rows: list[Row], fraction: float, seed: int, by_label: bool):
    train, held = split(rows, fraction, seed, by_label)
    assert sorted(map(str, train + held)) == sorted(map(str, rows))
    assert not {asked(row) for row in train} & {asked(row) for row in held}
    assert len(held) <= len(rows) / 2
    assert train == [row for row in rows if row in train]
    assert held == [row for row in rows if row in held]


@settings(max_examples=300, deadline=None)
@given(ROWS, FRACTIONS, SEEDS, st.booleans(), st.sampled_from([3, 1000]))
def test_the_split_is_that_of_the_rule_row_by_row(
    rows: list[Row], fraction: float, seed: int, by_label: bool, limit: int
):
    assert split(rows, fraction, seed, by_label, limit)[1] == by_the_row(rows, fraction, seed, by_label, limit)


@settings(max_examples=50, deadline=None)
@given(st.integers(200, 800), st.integers(0, 800), st.floats(0.05, 0.4), SEEDS)
def test_rows_that_are_added_move_no_text(first: int, more: int, fraction: float, seed: int):
    rows = many(first + more)
    random.Random(seed).shuffle(rows)
    held = [row for row in rows if text_digest(seed, row["text"]) / 2**64 < fraction]
    for some in (rows[:first], rows):
        share = len(set(map(asked, some)) & set(map(asked, held))) / len(some)
        if fraction / 2 <= share <= min(fraction * 2, 0.5):  # else the rule corrects
            assert split(some, fraction, seed, False)[1] == [row for row in some if row in held]


@settings(max_examples=100, deadline=None)
@given(ROWS, FRACTIONS, SEEDS, st.booleans(), st.randoms(use_true_random=False))
def test_order_does_not_matter(rows: list[Row], fraction: float, seed: int, by_label: bool, shuffler: random.Random):
    held = split(rows, fraction, seed, by_label)[1]
    shuffled = rows.copy()
    shuffler.shuffle(shuffled)
    again = split(shuffled, fraction, seed, by_label)[1]
    assert Counter(map(str, again)) == Counter(map(str, held))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from("abcde"), min_size=2, max_size=80), FRACTIONS, SEEDS)
def test_every_label_of_five_rows_is_held_out_once(labels: list[str], fraction: float, seed: int):
    rows = [{"text": f"text {i}", "target": label} for i, label in enumerate(labels)]
    train, held = split(rows, fraction, seed, True)
    kept, out = Counter(row["target"] for row in train), Counter(row["target"] for row in held)
    assert held
    for label, count in Counter(labels).items():
        assert kept[label] >= count / 2 or len(rows) == len(set(labels))
        assert out[label] >= (count >= 5)


def test_about_the_fraction_is_held_out():
    for count, fraction in ((20, 0.2), (100, 0.1), (1000, 0.2)):
        for seed in range(20):
            held = len(split(many(count), fraction, seed, True)[1])
            assert count * fraction / 2 <= held <= count * fraction * 2


def test_small_labels_do_not_swell_what_is_held_out():
    assert 15 <= len(split(many(300, labels=100), 0.1, 0, True)[1]) <= 60


def test_the_most_held_out_rows_have_some_of_each_label():
    rows = many(20_000, labels=2) + [{"text": f"rare {i}", "target": f"rare {i % 40}"} for i in range(200)]
    held = split(rows, 0.3, 0, True)[1]
    assert MOST_HELD_OUT * 0.8 <= len(held) <= MOST_HELD_OUT
    assert len({row["target"] for row in held}) == 42


def test_rows_that_come_later_move_no_row():
    rows = many(2000)
    before = split(rows[:1000], 0.2, 7, False)[1]
    after = split(rows, 0.2, 7, False)[1]
    assert [row for row in after if row in rows[:1000]] == before


def test_seeds_give_different_splits():
    assert split(many(100), 0.2, 0, False)[1] != split(many(100), 0.2, 1, False)[1]


def test_a_label_with_one_row_goes_to_training():
    for seed in range(50):
        rows = [*many(20), {"text": "alone", "target": "rare"}]
        assert rows[-1] in split(rows, 0.5, seed, True)[0]


def test_few_rows_are_split_too():
    assert split([], 0.2, 0, True) == ([], [])
    assert split(many(1), 0.9, 0, False) == (many(1), [])
    assert len(split(many(2), 0.2, 0, True)[1]) == 1


def test_chats_are_kept_apart_by_what_they_ask():
    def chat(question: int, answer: int) -> Row:
        turns = (("user", f"q{question}"), ("assistant", f"a{answer}"))
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    rows = [chat(i // 2, i) for i in range(40)]
    train, held = split(rows, 0.2, 0, False)
    assert not {asked(row) for row in train} & {asked(row) for row in held}
    assert held
