"""Rows of several versions in one pass: each row meets its own adapter, and a row without one costs nothing.

Two ways, whichever is faster. Where each row has one token, as in a step of generation, A and B of all rows lie stacked
and two batched multiplications serve them all; they are gathered once for a composition of rows, not for each step.
Where rows are long, each version multiplies its own stretch of rows, so callers put rows of one version side by side.
Measured on one core (docs/experiments.md): 8 rows of 8 versions cost 3 to 12 % of a layer; one product with all A side
by side, masked, costs as much at a step and three to five times more for long rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from serving.base.slots import Adapting, Slot


@dataclass(frozen=True)
class _Stack:
    """One layer's matrices for the rows that adapt it, ranks padded with zeros to one power of two."""

    rows: torch.Tensor | None
    """Indices of these rows, of shape (k,); None where it is all of them."""
    a: torch.Tensor
    """(k, inputs, rank)"""
    b: torch.Tensor
    """(k, rank, outputs), the scale multiplied in"""

    def added(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """`output` (rows, 1, outputs) and what the adapters add to it."""
        chosen = inputs if self.rows is None else inputs[self.rows]
        low = torch.bmm(chosen.to(self.a.dtype), self.a)
        if self.rows is None and output.dtype == self.b.dtype:
            return torch.baddbmm(output, low, self.b)
        added = torch.bmm(low, self.b).to(output.dtype)
        return output + added if self.rows is None else output.index_add(0, self.rows, added)


def mixed(rows: Sequence[Slot | None]) -> Adapting | None:
    """What a pass over rows of these versions is adapted by; None where no row has one."""
    distinct = set(map(id, rows))
    return rows[0] if len(distinct) == 1 else Mixture(rows)


def runs(rows: Sequence[Slot | None]) -> Iterator[tuple[Slot | None, int, int]]:
    """Neighbouring rows of one version: (version, first row, the row after the last)."""
    start = 0
    for _, run in groupby(rows, key=id):
        same = list(run)
        yield same[0], start, start + len(same)
        start += len(same)


class Mixture:
    """The versions of a pass's rows, in order; None for a row that the bare base answers."""

    def __init__(self, rows: Sequence[Slot | None]) -> None:
        self.rows = tuple(rows)
        self._runs = [(slot, start, end) for slot, start, end in runs(self.rows) if slot]
        self._stacks: dict[str, _Stack | None] = {}
        """By layer, once a step has asked; None where no row adapts it."""
        self._unstacked: set[str] = set()
        """Layers that some version replaces, or stretches (DoRA)."""
        for slot in {id(slot): slot for slot, _, _ in self._runs}.values():
            self._unstacked |= {name.removesuffix(".weight") for name in slot.whole} | set(slot.stretches)

    def change(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """The layer's output with each row's version; a layer may get the tokens of all rows in one dimension."""
        count = len(self.rows)
        split = inputs.reshape(count, -1, inputs.shape[-1])
        made = output.reshape(count, -1, output.shape[-1])
        if split.shape[1] == 1 and path not in self._unstacked:
            stack = self._stack(path, output.device)
            return stack.added(split, made).view(output.shape) if stack else None
        for slot, start, end in self._runs:
            changed = slot.change(path, split[start:end], made[start:end])
            if changed is not None:
                made[start:end] = changed
        return made.view(output.shape)

    def _stack(self, path: str, device: torch.device) -> _Stack | None:
        if path not in self._stacks:
            self._stacks[path] = self._gather(path, device)
        return self._stacks[path]

    def _gather(self, path: str, device: torch.device) -> _Stack | None:
        held = [(row, slot.pairs[path]) for row, slot in enumerate(self.rows) if slot and path in slot.pairs]
        if not held:
            return None
        highest = max(a.shape[0] for _, (a, _, _) in held)
        rank = 1 << (highest - 1).bit_length()
        stack_a = torch.stack([_padded(a, rank, 0) for _, (a, _, _) in held])
        stack_b = torch.stack([_padded(b, rank, 1).T for _, (_, b, _) in held])  # so laid out, B is read faster
        scales = [scale for _, (_, _, scale) in held]
        stack_b *= scales[0] if len(set(scales)) == 1 else stack_b.new_tensor(scales)[:, None, None]
        rows = None if len(held) == len(self.rows) else torch.tensor([row for row, _ in held], device=device)
        return _Stack(rows, stack_a.transpose(1, 2), stack_b)


def _padded(matrix: torch.Tensor, rank: int, dim: int) -> torch.Tensor:
    """A or B, its rank padded with zeros."""
    missing = rank - matrix.shape[dim]
    if not missing:
        return matrix
    return torch.nn.functional.pad(matrix, (0, missing) if dim else (0, 0, 0, missing))
