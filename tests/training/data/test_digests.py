"""Rows as numbers: what repeats, what conflicts, and texts that are known again for ever."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data.digests import MOST_NAMES, RowDigests, grouped, text_digest
from training.data.rows import Row


def digest(rows: list[Row], by_label: bool = True) -> RowDigests:
    digests = RowDigests(0)
    for row in rows:
        digests.add(row, by_label)
    return digests


def test_a_text_has_the_same_digest_for_ever() -> None:
    assert text_digest(0, " a text\n") == text_digest(0, "a text") == 0x50F2C4A8F69C87FD
    assert text_digest(1, "a text") != text_digest(0, "a text") != text_digest(0, "a  text")


@given(st.lists(st.tuples(st.sampled_from("ab "), st.sampled_from("xy"), st.booleans()), max_size=20))
def test_repeats_are_those_of_plain_steps(cells: list[tuple[str, str, bool]]) -> None:
    rows = [{"text": f"{' ' * wide}{text}", "target": target} for text, target, wide in cells]
    first: dict[tuple[str, str], int] = {}
    expected = []
    for index, row in enumerate(rows):
        earlier = first.setdefault((row["text"].strip(), row["target"]), index)
        expected += [(index, earlier)] if earlier != index else []
    later, firsts = digest(rows).repeats()
    assert list(zip(later.tolist(), firsts.tolist(), strict=True)) == expected


def test_counts() -> None:
    digests = digest([{"text": t, "target": y} for t, y in [("a b", "x"), ("a b ", "y"), ("c", "y"), ("d e f", "w")]])
    every = np.ones(4, bool)
    assert digests.conflicts(every) == 1
    assert digests.words(every) == {"median": 2, "max": 3}
    assert digests.labels(every).tolist() == [1, 2, 2, 0]
    assert digests.names == {"x": 0, "y": 1, "w": 2}
    some = np.array([True, False, True, False])
    assert (digests.conflicts(some), digests.labels(some).tolist(), len(digests.texts(some))) == (0, [1, 2], 2)
    nothing = digest([])
    assert nothing.words(np.ones(0, bool)) == {"median": 0, "max": 0} and nothing.conflicts(np.ones(0, bool)) == 0


def test_chats_conflict_by_their_last_answer() -> None:
    def chat(*contents: str) -> Row:
        return {"messages": [{"role": "au"[i % 2], "content": c} for i, c in enumerate(contents, 1)]}

    digests = digest([chat("a", "b"), chat("a", "b "), chat("a", "c"), chat("a", "b", "a", "b")], by_label=False)
    assert [found.tolist() for found in digests.repeats()] == [[1], [0]]
    assert digests.conflicts(np.array([True, False, True, True])) == 1


def test_names_fill_no_memory() -> None:
    digests = digest([{"text": str(i), "target": f"label {i}"} for i in range(MOST_NAMES + 50)])
    assert len(digests.names) == MOST_NAMES
    assert (digests.labels(np.ones(MOST_NAMES + 50, bool)) == MOST_NAMES).sum() == 50


def test_groups_come_in_order_with_their_members_in_order() -> None:
    chance = random.Random(0)
    digests = np.array([chance.choice([0, 5, 2**60, 2**63, 2**64 - 1]) for _ in range(200)], np.uint64)
    groups = [group for order, starts in grouped(digests) for group in np.split(order, starts[1:])]
    assert [int(digests[group[0]]) for group in groups] == sorted(set(digests.tolist()))
    assert all((digests[group] == digests[group[0]]).all() and (np.diff(group) > 0).all() for group in groups)
    assert sum(map(len, groups)) == 200
