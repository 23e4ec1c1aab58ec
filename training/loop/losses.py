"""The summed loss of a micro-batch, with logits computed only at learned positions.

A causal model's output layer is its largest: 49,152 words of SmolLM2 for each position, of which a row's question needs
none. A hook in front of that layer keeps the learned positions, for every architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from training.data.tokens import IGNORED

Batch = Mapping[str, torch.Tensor]
"""The inputs of a model for several rows, by name; see `batches.collate` and `batches.pack`."""


def summed_loss(net: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:  # noqa: ANN401 - a PreTrainedModel, or PEFT's
    """Return the summed cross-entropy of a micro-batch in nats, and a classifier's logits (rows, labels).

    `labels` of the batch are (rows,) for a classifier; otherwise (rows, positions), and the logits are None.
    """
    if batch["labels"].dim() == 1:
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits: torch.Tensor = net(**inputs).logits.float()
        return functional.cross_entropy(logits, batch["labels"], reduction="sum"), logits
    return token_losses(net, batch)[0].sum(), None


def token_losses(net: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:  # noqa: ANN401 - as above
    """Return the cross-entropy of each learned token in nats, and the number of its row; both of shape (tokens,)."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    labels = batch["labels"]
    learned = labels != IGNORED
    if net.config.is_encoder_decoder:
        base = net.get_base_model() if hasattr(net, "get_base_model") else net
        inputs["decoder_input_ids"] = base.prepare_decoder_input_ids_from_labels(labels=labels)
        positions = learned
    else:
        # The logits at a position are for the token after it.
        positions = torch.zeros_like(learned)
        learned[:, 0] = False
        positions[:, :-1] = learned[:, 1:]
    with _positions_only(net.get_output_embeddings(), positions):
        logits = net(**inputs, use_cache=False).logits[0].float()
    return functional.cross_entropy(logits, labels[learned], reduction="none"), learned.nonzero()[:, 0]


@contextmanager
def _positions_only(layer: torch.nn.Module, positions: torch.Tensor) -> Iterator[None]:
    """Pass `layer` its input (rows, positions, width) at these positions alone, as (1, chosen, width)."""
    hook = layer.register_forward_pre_hook(lambda _, args: (args[0][positions].unsqueeze(0), *args[1:]))
    try:
        yield
    finally:
        hook.remove()
