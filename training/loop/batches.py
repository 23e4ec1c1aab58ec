"""Batches of a run, determined by lengths, seed and epoch, and the tensors of a micro-batch.

An optimizer step averages over a batch. It goes through the model in micro-batches of rows of similar length, each
within a budget of tokens: the gradient is that of the whole batch, memory depends on the budget alone, and there is
little padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from training.data.tokens import IGNORED, Example

WINDOW = 16
"""Batches within which rows are sorted by length; fewer pad more, more make the batches less random."""
WIDTH_STEP = 8
"""Padded rows have a multiple of it as width. The C library's heap keeps holes for each width, and oneDNN a kernel: on
MiniLM and short rows in bfloat16 arbitrary widths took a third more memory, and more time than the padding."""

RowLengths = NDArray[np.int32]


class Rows(Protocol):
    """Encoded rows by number."""

    lengths: RowLengths
    """Tokens of each row, of shape (rows,)."""
    learned: RowLengths
    """Learned tokens of each row, of shape (rows,); 1 for a label."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Example: ...


def epoch_batches(lengths: RowLengths, size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the row numbers of each batch of one epoch: every row once, the last batch may be smaller.

    Rows are shuffled, sorted by length within windows of `WINDOW` batches, cut into batches, and these are shuffled.
    """
    random = np.random.default_rng([seed, epoch])
    order = random.permutation(len(lengths))
    windows = [order[start : start + WINDOW * size] for start in range(0, len(order), WINDOW * size)]
    grouped = [window[np.argsort(lengths[window], kind="stable")] for window in windows]
    batches = [rows[start : start + size] for rows in grouped for start in range(0, len(rows), size)]
    return [batches[index] for index in random.permutation(len(batches))]


def batches_of_run(lengths: RowLengths, size: int, seed: int, first: int, steps: int) -> Iterator[NDArray[np.int64]]:
    """Yield the batches of the steps `first` to `steps` - 1 of a run, epoch after epoch."""
    per_epoch = -(-len(lengths) // size)
    epoch = first // per_epoch
    while epoch * per_epoch < steps:
        batches = epoch_batches(lengths, size, seed, epoch)
        yield from batches[max(0, first - epoch * per_epoch) : steps - epoch * per_epoch]
        epoch += 1


def micro_batches(rows: Sequence[int] | NDArray[np.int64], lengths: RowLengths, budget: int) -> Iterator[list[int]]:
    """Yield the rows of a batch in groups of at most `budget` padded tokens (or one row), shortest first."""
    group: list[int] = []
    for row in sorted(map(int, rows), key=lambda row: int(lengths[row])):
        if group and (len(group) + 1) * int(lengths[row]) > budget:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def padded_batches(
    rows: Sequence[Example] | Rows, lengths: RowLengths, pad: int, budget: int, device: torch.device
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Yield all rows in padded micro-batches on `device`, each with the numbers of its rows."""
    widest = int(lengths.max(initial=0))
    for group in micro_batches(range(len(rows)), lengths, budget):
        batch = collate([rows[row] for row in group], pad, widest)
        yield group, {name: tensor.to(device) for name, tensor in batch.items()}


def collate(examples: Sequence[Example], pad: int, widest: int = 0) -> dict[str, torch.Tensor]:
    """Return a padded micro-batch (rows, width) of int64, without `attention_mask` where nothing is padded.

    Labels of rows are (rows,), labels of positions are padded with `IGNORED`. Several rows are as wide as the next
    multiple of `WIDTH_STEP`, but no wider than `widest` (a model may not take more) or the longest of them.
    """
    ids = [example["input_ids"] for example in examples]
    batch = {"input_ids": _padded(ids, pad, widest)}
    if batch["input_ids"].numel() > sum(map(len, ids)):
        batch["attention_mask"] = _padded([[1] * len(row) for row in ids], 0, widest)
    labels = [example["labels"] for example in examples]
    batch["labels"] = torch.tensor(labels) if isinstance(labels[0], int) else _padded(labels, IGNORED, widest)
    return batch


def pack(examples: Sequence[Example]) -> dict[str, torch.Tensor]:
    """Return a micro-batch as one row (1, tokens) without padding, whose positions begin anew with each example.

    From such positions transformers makes a mask that lets no example see another.
    """
    # The first token of an example is never learned: nothing of its own comes before it.
    labels = [[IGNORED, *example["labels"][1:]] for example in examples]
    return {
        "input_ids": torch.tensor([[token for example in examples for token in example["input_ids"]]]),
        "position_ids": torch.tensor([[i for example in examples for i in range(len(example["input_ids"]))]]),
        "labels": torch.tensor([[label for row in labels for label in row]]),
    }


def _padded(rows: Sequence[Sequence[int]], filler: int, widest: int) -> torch.Tensor:
    longest = max(map(len, rows))
    width = max(longest, min(-(-longest // WIDTH_STEP) * WIDTH_STEP, widest)) if len(rows) > 1 else longest
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])
