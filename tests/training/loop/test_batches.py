"""training/loop/batches.py: every row once an epoch, micro-batches within the budget, little padding."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.data.tokens import IGNORED
from training.loop.batches import batches_of_run, collate, epoch_batches, micro_batches

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=200).map(lambda rows: np.array(rows, np.int32))


@given(LENGTHS, st.integers(1, 17), st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_an_epoch_has_every_row_once_in_batches_of_the_size(lengths, size, seed, epoch) -> None:
    batches = epoch_batches(lengths, size, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert sum(len(batch) < size for batch in batches) <= 1 and max(map(len, batches)) <= size
    again = epoch_batches(lengths, size, seed, epoch)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_epochs_and_seeds_have_different_orders_of_rows_of_similar_length() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 2000).astype(np.int32)
    epochs = [epoch_batches(lengths, 16, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(np.concatenate(batches)) for batches in epochs}) == 4
    assert sum(len(batch) * lengths[batch].max() for batch in epochs[0]) < 1.1 * lengths.sum()


@given(LENGTHS, st.integers(1, 9), st.integers(1, 60), st.data())
def test_a_resumed_run_continues_with_the_same_batches(lengths, size, steps, data) -> None:
    whole = [batch.tolist() for batch in batches_of_run(lengths, size, 7, 0, steps)]
    first = data.draw(st.integers(0, steps))
    assert [batch.tolist() for batch in batches_of_run(lengths, size, 7, first, steps)] == whole[first:]
    assert len(whole) == steps


@given(LENGTHS, st.integers(1, 1000))
def test_micro_batches_keep_the_budget_or_are_one_row(lengths, budget) -> None:
    groups = list(micro_batches(range(len(lengths)), lengths, budget))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or len(group) * lengths[group].max() <= budget for group in groups)


def test_padding_is_masked_and_nothing_else_is() -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [IGNORED, 6, 7]}, {"input_ids": [8], "labels": [8]}]
    batch = collate(rows, pad=9)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert "attention_mask" not in collate(rows[:1], pad=9)
    assert collate([{"input_ids": [1], "labels": 3}], pad=9)["labels"].tolist() == [3]


def test_padded_rows_have_few_widths_and_are_no_wider_than_a_model_takes() -> None:
    rows = [{"input_ids": [5] * n, "labels": [5] * m} for n, m in ((3, 12), (1, 9))]
    shapes = {
        widest: [tuple(collate(rows, 9, widest)[key].shape) for key in ("input_ids", "attention_mask", "labels")]
        for widest in (0, 13, 100)
    }
    assert shapes == {0: [(2, 3), (2, 3), (2, 12)], 13: [(2, 8), (2, 8), (2, 13)], 100: [(2, 8), (2, 8), (2, 16)]}
    assert collate(rows, 9, 100)["attention_mask"].sum() == 4
    assert {tuple(tensor.shape) for tensor in collate(rows[:1], 9, 100).values()} == {(1, 3), (1, 12)}
