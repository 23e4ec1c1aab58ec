"""training/data/table.py: a sample is seeded, bounded, and takes every row with the same chance."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from training.data.digests import text_digest
from training.data.table import HALF, Sample


def filled(texts: list[str], rows: int, characters: int = 10**9) -> Sample:
    sample = Sample(rows, characters)
    for number, text in enumerate(texts, 1):
        sample.add(number, text_digest(0, text), hash(text), {"text": text, "target": ""})
    return sample


def test_a_small_file_is_taken_whole_and_once() -> None:
    taken = filled(["a", "b", "a", "c"], 10).first()
    assert [(one.number, one.row["text"]) for one in taken] == [(1, "a"), (2, "b"), (4, "c")]


@given(st.lists(st.text(max_size=20), max_size=60), st.integers(1, 20), st.integers(0, 200))
def test_the_rows_of_smallest_priority(texts: list[str], rows: int, characters: int) -> None:
    """Whatever was pushed out on the way, no row that is left out comes before one that is taken."""
    taken = {one.row["text"] for one in filled(texts, rows, characters).first()}
    assert len(taken) <= rows and (sum(map(len, taken)) <= characters or len(taken) == 1)
    priorities = {text: text_digest(0, text) & HALF for text in texts}
    last = max((priorities[text] for text in taken), default=-1)
    assert all(text in taken for text in texts if priorities[text] < last)


def test_no_part_of_a_file_is_preferred() -> None:
    texts = [f"text {i} {'long ' * (i % 50)}" for i in range(2_000)]
    taken = filled(texts, 200).first()
    half = sum(one.number <= 1_000 for one in taken)
    assert len(taken) == 200 and 70 <= half <= 130
    assert filled(list(reversed(texts)), 200).first()[0].row in [one.row for one in taken]
