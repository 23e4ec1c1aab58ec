"""How the peers' bases are held: where the app's would lie, in what `GRAFT_PRECISION` says for both sides."""

from __future__ import annotations

import torch

from settings import Settings
from store.loading import compute_dtype, device

__all__ = ["device", "dtype"]


def dtype() -> torch.dtype:
    """Of weights that are not quantized."""
    return compute_dtype(Settings.from_env().precision)
