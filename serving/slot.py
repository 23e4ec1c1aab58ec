"""One version in memory, and what it makes of a layer's output. LoRA: y + scale * B(A x) (Hu et al., 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import torch
from torch import nn

from serving.heads import Head
from serving.magnitude import Stretch
from store.adapters import Version

Pairs = Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]


class Adapting(Protocol):
    """What a pass is adapted by: one version for all of its rows (`Slot`), or several (`serving.mixture.Mixture`)."""

    def change(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """What the layer at `path`, which made `output` of `inputs`, answers instead; None: what it made.

        `output` may be written to: it was made for this pass, and nobody else has it.
        """


@dataclass(eq=False)
class Slot:
    """One version in memory. Immutable but for its users, so that passes of several threads may share it."""

    version: Version
    pairs: Pairs
    """Path of a layer -> A of shape (rank, inputs), B of shape (outputs, rank), scale."""
    whole: Mapping[str, torch.Tensor]
    head: Head | None
    stretches: Mapping[str, Stretch] = field(default_factory=dict)
    """Of a version that was trained with DoRA: what its layers' own outputs become."""
    users: int = field(default=0)

    @cached_property
    def size(self) -> int:
        """Bytes of its matrices."""
        held = [tensor for a, b, _ in self.pairs.values() for tensor in (a, b)] + [*self.whole.values()]
        return sum(tensor.nbytes for tensor in held)

    def change(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """The layer's output with this version, for every row alike; None where the version leaves it as it is."""
        if self.replaces(path):
            return nn.functional.linear(inputs, self.whole[f"{path}.weight"], self.whole.get(f"{path}.bias"))
        pair = self.pairs.get(path)
        if pair is None:
            return None
        a, b, scale = pair
        if stretch := self.stretches.get(path):
            output = stretch.of(output)
        low = nn.functional.linear(inputs.to(a.dtype), a).flatten(0, -2)
        if output.dtype == b.dtype:
            return output.flatten(0, -2).addmm_(low, b.T, alpha=scale).view(output.shape)
        return output + (low @ b.T * scale).view(output.shape).to(output.dtype)

    def replaces(self, path: str) -> bool:
        """Whether this version brings the layer's weights whole: a classifier's pooler, say."""
        return bool(self.whole) and f"{path}.weight" in self.whole
