"""Whether a base fits into the memory that is free, before its weights are read."""

from __future__ import annotations

import math

from errors import ModelError
from store import free_memory, weights
from store.models import Model

BYTES = {"none": 4.0, "8bit": 1.2, "4bit": 0.8}
"""Of one weight while it is held by a CPU, a little of the loading included; an accelerator holds one in half of it."""
SPARE = 300_000_000
"""Bytes that are left for everything else."""


def require(model: Model, quantize: str, accelerator: int | None = None) -> None:
    """Raise `ModelError` where a further base would not fit, held as `quantize`.

    `accelerator` is the bytes that are free where the weights will lie, if that is not the main memory.
    """
    count = sum(math.prod(tensor.shape) for tensor in weights.tensors(model.path))
    wanted = count * BYTES[quantize] / (1 if accelerator is None else 2)
    there = free_memory.free() if accelerator is None else accelerator
    if wanted + SPARE > there:
        raise ModelError(
            f"There is no room for {model.id} beside what is loaded.",
            f"It needs {wanted / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are free.",
            "End other programs, hold bases in 4bit (GRAFT_QUANTIZE), or use a version of the tab's own base.",
        )
