"""Loss and accuracy on rows that are not trained on, measured during a run to show when learning turns to memorizing.

The rows are the held-out ones, unless the metrics decide something: where they choose the best state or the end of the
run, the rows are taken from those to train on, because the card's rows must have no say in what is published.
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

from models.loading import autocast
from training.config import TrainConfig
from training.data.tokens import Example
from training.estimate.training_memory import EVALUATED_ROWS, EVALUATED_TOKENS
from training.loop.batches import RowLengths, Rows, padded_batches
from training.loop.losses import row_loss, token_loss

SHARE = 0.1
"""Share of the rows to train on that decides on the best state."""


@dataclass(frozen=True)
class Subset:
    """Some of the rows, by number."""

    rows: Rows
    chosen: NDArray[np.int64]

    @cached_property
    def lengths(self) -> RowLengths:
        """Tokens of each row."""
        return self.rows.lengths[self.chosen]

    @cached_property
    def learned(self) -> RowLengths:
        """Learned tokens of each row."""
        return self.rows.learned[self.chosen]

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Example:
        return self.rows[int(self.chosen[index])]


def choose_rows(train: Rows, held_out: Rows, config: TrainConfig) -> tuple[Rows, Rows]:
    """Return the rows to train on and those to validate on, which have no row in common."""
    if not (config.keep_best or config.patience):
        return train, Subset(held_out, np.arange(min(EVALUATED_ROWS, len(held_out))))
    order = np.random.default_rng(config.seed).permutation(len(train))
    count = min(EVALUATED_ROWS, max(1, round(SHARE * len(train))))
    return Subset(train, np.sort(order[count:])), Subset(train, order[:count])


@dataclass(frozen=True)
class Validation:
    """Measures a model on `rows`, padded with the token `pad` and computed in `dtype`."""

    rows: Rows
    pad: int
    dtype: torch.dtype

    @torch.inference_mode()
    def __call__(self, net: Any) -> dict[str, float]:  # noqa: ANN401 - a PeftModel
        """Return `loss`, the mean over learned tokens in nats, and for labels `accuracy`."""
        loss, right, labelled = 0.0, 0, False
        for _, batch in padded_batches(self.rows, self.rows.lengths, self.pad, EVALUATED_TOKENS, net.device):
            labelled = batch["labels"].dim() == 1
            with autocast(self.dtype), _without_dropout(net):
                if labelled:
                    summed, logits = row_loss(net, batch)
                    right += int((logits.argmax(-1) == batch["labels"]).sum())
                else:
                    summed = token_loss(net, batch)
            loss += float(summed)
        metrics = {"loss": loss / int(self.rows.learned.sum())}
        return metrics | ({"accuracy": right / len(self.rows)} if labelled else {})


@contextmanager
def _without_dropout(net: Any) -> Iterator[None]:  # noqa: ANN401 - as above
    """Switch dropout off until the block ends.

    Not `net.eval()`, in which bitsandbytes' layers compute in another way than in training.
    """
    layers = [module for module in net.modules() if isinstance(module, torch.nn.Dropout) and module.training]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()
