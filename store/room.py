"""Whether a base fits into the memory that is free, before its weights are read."""

from __future__ import annotations

import math

from errors import ModelError
from store import free_memory, weights
from store.models import Model

QUANTIZED_BYTES = {"8bit": 1.2, "4bit": 0.8}
"""Of one weight while it is held, embeddings and a little of the loading included."""
SPARE = 300_000_000
"""Bytes that are left for everything else."""


def require(model: Model, quantize: str, width: int, accelerator: int | None = None) -> None:
    """Raise `ModelError` where a further base would not fit, held as `quantize`.

    `width` is the bytes of one weight that is not quantized;
    `accelerator` is the bytes that are free where the weights will lie, if that is not the main memory.
    """
    count = sum(math.prod(tensor.shape) for tensor in weights.tensors(model.path))
    wanted = count * QUANTIZED_BYTES.get(quantize, width)
    there = free_memory.free() if accelerator is None else accelerator
    if wanted + SPARE > there:
        raise ModelError(
            f"There is no room for {model.id} beside what is loaded.",
            f"It needs {wanted / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are free.",
            "End other programs, hold bases in fewer bits (GRAFT_QUANTIZE, GRAFT_PRECISION), or use a version of "
            "the tab's own base.",
        )
