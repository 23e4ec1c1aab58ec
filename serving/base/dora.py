"""DoRA beside a resident base (Liu et al., 2024): how much each output of an adapted layer is lengthened or shortened.

DoRA learns the length m of each row of a layer's weight apart from its direction: W' = m * V / ||V||, where
V = W + scale * B A, so the layer answers m / ||V|| * (W x + scale * B A x) + bias. W and V do not change while a
version is in memory; so the norms are computed once, when it is loaded, and a pass costs one multiplication more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from models.transformers_private import dense_weight


@dataclass(frozen=True)
class Stretch:
    """What one layer's output becomes: y + excess * y + shift, each of shape (outputs,).

    `excess` is m / ||V|| - 1, which is small, so that a base in 16 bits loses nothing to rounding. `shift` undoes it
    for the layer's bias, which DoRA leaves alone; None where it has none.
    """

    excess: torch.Tensor
    shift: torch.Tensor | None

    def of(self, output: torch.Tensor) -> torch.Tensor:
        """The stretched output of the layer, before the adapter's own part is added."""
        stretched = torch.addcmul(output, output, self.excess.to(output.dtype))
        return stretched if self.shift is None else stretched + self.shift.to(output.dtype)


def stretch(
    layer: nn.Module, pair: tuple[torch.Tensor, torch.Tensor, float], magnitude: torch.Tensor, dtype: torch.dtype
) -> tuple[Stretch, torch.Tensor]:
    """The layer's `Stretch` in `dtype`, and the B matrix (outputs, rank) that gives the adapter's own part with it.

    Where a row of V has no length, what comes out is not finite.
    """
    a, b, scale = pair[0].float(), pair[1].float(), pair[2]
    rows = torch.addmm(dense_weight(layer), b, a, alpha=scale)
    ratio = magnitude.float().to(rows.device) / torch.linalg.vector_norm(rows, dim=1)
    bias = getattr(layer, "bias", None)
    excess = ratio - 1
    shift = None if bias is None else (-excess * bias.float()).to(dtype)
    return Stretch(excess.to(dtype), shift), (ratio[:, None] * b).to(dtype)
