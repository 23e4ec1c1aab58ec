"""Rows of several versions in one forward pass, each with its own adapter; a row of the bare base costs nothing.

If each row has one token, as in a decoding step, A and B of all rows are stacked for two batched multiplications; the
stacks are made once for a composition of rows, not for each step. If rows are longer, each version multiplies its own
segment of rows, so callers put rows of one version side by side. Measured on one core (docs/experiments.md): 8 rows of
8 versions cost 3 to 12 % of a layer; one masked product with all A side by side costs as much at a step and three to
five times more for long rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from serving.base.slots import Slot, segments


@dataclass(frozen=True)
class _Stack:
    """The matrices of a layer for the rows that adapt it, padded with zeros to one rank, a power of two."""

    rows: torch.Tensor | None
    """Indices of the k rows; None for all rows."""
    a: torch.Tensor
    """(k, inputs, rank)"""
    b: torch.Tensor
    """(k, rank, outputs), the scale multiplied in"""

    def add_to(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        """Return `output` of shape (rows, 1, outputs) plus the adapters' products."""
        chosen = inputs if self.rows is None else inputs[self.rows]
        low = torch.bmm(chosen.to(self.a.dtype), self.a)
        if self.rows is None and output.dtype == self.b.dtype:
            return torch.baddbmm(output, low, self.b)
        added = torch.bmm(low, self.b).to(output.dtype)
        return output + added if self.rows is None else output.index_add(0, self.rows, added)


class MixedBatch:
    """The adapter of a pass whose rows have different versions."""

    def __init__(self, slots: Sequence[Slot | None]) -> None:
        """`slots`: the slot of each row; None for the bare base."""
        self.slots = tuple(slots)
        self._segments = [(slot, start, end) for slot, start, end in segments(self.slots) if slot]
        self._stacks: dict[str, _Stack | None] = {}
        """Stacks by layer, made at its first decoding step; None if no row adapts the layer."""
        self._unstacked: set[str] = set()
        """Layers whose weights a version replaces or rescales (DoRA)."""
        for slot, _, _ in self._segments:
            self._unstacked |= {name.removesuffix(".weight") for name in slot.whole} | set(slot.dora)

    def adapt(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Return the layer's output with each row's version; rows and tokens may share one dimension."""
        count = len(self.slots)
        split = inputs.reshape(count, -1, inputs.shape[-1])
        made = output.reshape(count, -1, output.shape[-1])
        if split.shape[1] == 1 and path not in self._unstacked:
            if path not in self._stacks:
                self._stacks[path] = self._stack(path, output.device)
            stack = self._stacks[path]
            return stack.add_to(made, split).view(output.shape) if stack else None
        for slot, start, end in self._segments:
            adapted = slot.adapt(path, split[start:end], made[start:end])
            if adapted is not None:
                made[start:end] = adapted
        return made.view(output.shape)

    def _stack(self, path: str, device: torch.device) -> _Stack | None:
        found = [(row, slot.pairs[path]) for row, slot in enumerate(self.slots) if slot and path in slot.pairs]
        if not found:
            return None
        highest = max(a.shape[0] for _, (a, _, _) in found)
        rank = 1 << (highest - 1).bit_length()
        stack_a = torch.stack([_padded(a, rank, 0) for _, (a, _, _) in found])
        stack_b = torch.stack([_padded(b, rank, 1).T for _, (_, b, _) in found])  # read faster in this layout
        scales = [scale for _, (_, _, scale) in found]
        stack_b *= scales[0] if len(set(scales)) == 1 else stack_b.new_tensor(scales)[:, None, None]
        rows = None if len(found) == len(self.slots) else torch.tensor([row for row, _ in found], device=device)
        return _Stack(rows, stack_a.transpose(1, 2), stack_b)


def _padded(matrix: torch.Tensor, rank: int, dim: int) -> torch.Tensor:
    """Return A or B, padded with zeros to the rank."""
    missing = rank - matrix.shape[dim]
    if not missing:
        return matrix
    return torch.nn.functional.pad(matrix, (0, missing) if dim else (0, 0, 0, missing))
