"""How the peers' bases are held: where the app's would lie, in what `GRAFT_PRECISION` says for both sides."""

from __future__ import annotations

import torch

from models.loading import compute_dtype, device
from settings import Settings

__all__ = ["device", "dtype"]


def dtype() -> torch.dtype:
    """Of weights that are not quantized."""
    return compute_dtype(Settings.from_env().precision)
