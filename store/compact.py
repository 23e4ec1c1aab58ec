"""Embeddings of a quantized base in 16 bits: of a small encoder they are half of all there is, and nothing packs them.

They are looked up, not multiplied, so nothing is computed in 16 bits: rows are widened as they are read. float16 keeps
11 bits of each value, where the 4-bit layers behind it keep 4.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

HELD = torch.float16
LARGEST = 60_000.0
"""A value that float16 has; embeddings with larger ones stay as they are."""


@torch.no_grad()
def halve_embeddings(net: nn.Module) -> int:
    """Hold the float32 embeddings of a frozen model in float16, in place; returns how many were.

    One that another module shares (an output layer, which multiplies with it) stays as it is. A halved one is a buffer:
    what the model computes in goes by the type of its parameters, and that has not changed.
    """
    embeddings = [module for module in net.modules() if isinstance(module, nn.Embedding)]
    owners = Counter(id(p) for m in net.modules() for p in m.parameters(recurse=False))
    halved = [
        module for module in embeddings
        if owners[id(module.weight)] == 1 and module.weight.dtype == torch.float32
        and module.weight.abs().amax() < LARGEST
    ]  # fmt: skip
    for module in halved:
        weight = module.weight.to(HELD)
        del module.weight
        module.register_buffer("weight", weight)
        module.register_forward_hook(_widen)
    return len(halved)


def _widen(module: nn.Module, args: tuple[torch.Tensor, ...], rows: torch.Tensor) -> torch.Tensor:
    return rows.float()


def held_bytes(net: nn.Module) -> int:
    """Bytes of what a model holds and does not learn: weights, the scales of quantized ones, buffers."""
    frozen = [weight for weight in net.parameters() if not weight.requires_grad]
    return sum(tensor.nbytes for tensor in [*frozen, *net.buffers(), *(s for w in frozen for s in _scales(w))])


def _scales(weight: torch.Tensor) -> list[torch.Tensor]:
    """The scales of a bitsandbytes weight, which may be quantized themselves."""
    state = getattr(weight, "quant_state", None)
    holders = [(weight, ("SCB",)), *((one, ("absmax", "code")) for one in (state, getattr(state, "state2", None)))]
    found = [getattr(holder, name, None) for holder, names in holders for name in names]
    return [tensor for tensor in found if isinstance(tensor, torch.Tensor)]
