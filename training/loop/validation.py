"""Validation during a run: loss and accuracy on rows that are not trained on, which show when it begins to overfit.

The rows are the held-out ones, unless validation decides something: where it chooses the best state or the end of the
run, the rows are taken from those to train on, because the card's rows must have no say in what is published.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.loading import autocast
from training.config import TrainConfig
from training.data.tokens import Example
from training.estimate.training_memory import EVALUATED_ROWS, EVALUATED_TOKENS
from training.loop.batches import Rows, padded_batches
from training.loop.losses import summed_loss

SHARE = 0.1
"""Share of the rows to train on that is used to choose the best state."""


class Subset:
    """Some of the rows, by number."""

    def __init__(self, rows: Rows, chosen: NDArray[np.int64]) -> None:
        self._rows, self._chosen = rows, chosen
        self.lengths, self.learned = rows.lengths[chosen], rows.learned[chosen]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Example:
        return self._rows[int(self._chosen[index])]


def choose_rows(train: Rows, held_out: Rows, config: TrainConfig) -> tuple[Rows, Rows]:
    """Return the rows to train on and those to validate on, which have no row in common."""
    if not (config.keep_best or config.patience):
        return train, Subset(held_out, np.arange(min(EVALUATED_ROWS, len(held_out))))
    order = np.random.default_rng(config.seed).permutation(len(train))
    count = min(EVALUATED_ROWS, max(1, round(SHARE * len(train))))
    return Subset(train, np.sort(order[count:])), Subset(train, order[:count])


@torch.inference_mode()
def validate(net: Any, rows: Rows, pad: int, dtype: torch.dtype) -> dict[str, float]:  # noqa: ANN401 - a PeftModel
    """Return `loss`, the mean over learned tokens in nats, and for labels `accuracy`.

    Rows are padded with the token `pad`; matrix products are computed in `dtype`.
    """
    loss, correct, logits = 0.0, 0, None
    _set_dropout(net, False)
    for _, batch in padded_batches(rows, rows.lengths, pad, EVALUATED_TOKENS, net.device):
        with autocast(dtype):
            summed, logits = summed_loss(net, batch)
        loss += float(summed)
        if logits is not None:
            correct += int((logits.argmax(-1) == batch["labels"]).sum())
    _set_dropout(net, True)
    metrics = {"loss": loss / int(rows.learned.sum())}
    return metrics if logits is None else metrics | {"accuracy": correct / len(rows)}


def _set_dropout(net: torch.nn.Module, on: bool) -> None:
    """Switch dropout on or off; `net.eval()` would change how bitsandbytes' layers compute, too."""
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.train(on)
