"""Rows of several versions in one pass: each row meets its own adapter, and a row without one costs nothing.

Two ways, whichever is faster. Where each row has one token, as in a step of generation, A and B of all rows lie stacked
and two batched multiplications serve them all; they are gathered once for a composition of rows, not for each step.
Where rows are long, each version multiplies its own stretch of rows, so callers put rows of one version side by side.
Measured on one core (`bench/SERVING.md`): 8 rows of 8 versions cost 3 to 12 % of a layer; one product with all A side
by side, masked, costs as much at a step and three to five times more for long rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch

from serving.slot import Adapting, Slot


@dataclass(frozen=True)
class _Stack:
    """One layer's matrices for the rows that adapt it, ranks padded with zeros to one power of two."""

    rows: torch.Tensor | None
    """Indices of these rows, of shape (k,); None where it is all of them."""
    a: torch.Tensor
    """(k, rank, inputs)"""
    b: torch.Tensor
    """(k, outputs, rank), the scale multiplied in"""

    def added(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """`output` (rows, tokens, outputs) and what the adapters add to it."""
        chosen = inputs if self.rows is None else inputs[self.rows]
        low = torch.bmm(chosen.to(self.a.dtype), self.a.transpose(1, 2))
        if self.rows is None and output.dtype == self.b.dtype:
            return torch.baddbmm(output, low, self.b.transpose(1, 2))
        added = torch.bmm(low, self.b.transpose(1, 2)).to(output.dtype)
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

    def change(self, path: str, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """The layer's output with each row's version; a layer may get the tokens of all rows in one dimension."""
        count = len(self.rows)
        split = inputs.reshape(count, -1, inputs.shape[-1])
        made = output.reshape(count, -1, output.shape[-1])
        if split.shape[1] == 1 and not any(slot.replaces(path) or path in slot.stretches for slot, _, _ in self._runs):
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
        first_a, first_b, _ = held[0][1]
        stack_a = first_a.new_zeros(len(held), rank, first_a.shape[1])
        stack_b = first_b.new_zeros(len(held), first_b.shape[0], rank)
        for i, (_, (a, b, scale)) in enumerate(held):
            stack_a[i, : a.shape[0]] = a
            torch.mul(b, scale, out=stack_b[i, :, : a.shape[0]])
        rows = None if len(held) == len(self.rows) else torch.tensor([row for row, _ in held], device=device)
        return _Stack(rows, stack_a, stack_b)
