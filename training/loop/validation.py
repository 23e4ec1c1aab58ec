"""The loss on rows that are not learned from, looked at on the way: the curve that shows when learning turns to memory.

Where nothing is decided by it, the rows are the held-out ones. Where it chooses the best state or the end of the run,
they are taken from the training rows: figures of a card must be of rows that had no say in what was published.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.loading import computing
from training.config import TrainConfig
from training.data.tokens import Example
from training.loop.batches import Lengths, Rows, collate, micro_batches
from training.loop.losses import row_loss, token_loss

MOST = 100
"""Rows; a look takes seconds, not minutes."""
SHARE = 0.1
BUDGET = 2048
"""Padded tokens in one pass."""


@dataclass(frozen=True)
class Subset:
    """Some of the rows, by number."""

    rows: Rows
    chosen: NDArray[np.int64]

    @cached_property
    def lengths(self) -> Lengths:
        """Tokens of each."""
        return self.rows.lengths[self.chosen]

    @cached_property
    def learned(self) -> Lengths:
        """Learned tokens of each."""
        return self.rows.learned[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Example:
        return self.rows[int(self.chosen[index])]


def choose_rows(train: Rows, held_out: Rows, config: TrainConfig) -> tuple[Rows, Rows]:
    """Rows to learn from and rows to look at on the way; none in common."""
    if not (config.keep_best or config.patience):
        return train, Subset(held_out, np.arange(min(MOST, len(held_out))))
    order = np.random.default_rng(config.seed).permutation(len(train))
    count = min(MOST, max(1, round(SHARE * len(train))))
    return Subset(train, np.sort(order[count:])), Subset(train, order[:count])


@dataclass(frozen=True)
class Validation:
    """Puts `rows` to a model: mean loss in nats, and accuracy for labels."""

    rows: Rows
    pad: int
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(self, net: Any) -> dict[str, float]:  # noqa: ANN401 - a PeftModel
        """`loss`, and `accuracy` where rows have labels."""
        loss, right, labelled = 0.0, 0, False
        widest = int(self.rows.lengths.max(initial=0))
        for group in micro_batches(range(len(self.rows)), self.rows.lengths, BUDGET):
            batch = {k: v.to(net.device) for k, v in collate([self.rows[i] for i in group], self.pad, widest).items()}
            labelled = batch["labels"].dim() == 1
            with computing(self.dtype), _undropped(net):
                if labelled:
                    summed, logits = row_loss(net, batch)
                    right += int((logits.argmax(-1) == batch["labels"]).sum())
                else:
                    summed = token_loss(net, batch)
            loss += float(summed)
        figures = {"loss": loss / int(self.rows.learned.sum())}
        return figures | ({"accuracy": right / len(self.rows)} if labelled else {})


@contextmanager
def _undropped(net: Any) -> Iterator[None]:  # noqa: ANN401 - as above
    """Dropout is off until the block ends.

    Not `net.eval()`, in which bitsandbytes' layers compute in another way than they do while they learn.
    """
    layers = [module for module in net.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
