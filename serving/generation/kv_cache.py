"""Key-value caches: of the running generations, and of earlier prompts.

All running rows share one block of memory and end at the same column, so that a step writes one column and all rows
attend over a view; shorter rows are masked at their beginning (left padding). A step copies nothing: a new row is
written into a free place, the last row moves to the place of one that leaves, and only growing the block copies it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad
from transformers.cache_utils import Cache, CacheLayerMixin

from models.transformers_private import LayerState
from serving.base.slots import Slot

GROWTH = 64
"""Least number of columns by which the block grows."""
SHORTEST_PREFIX = 16
"""Least number of tokens of a prefix that is reused."""
PREFIX_BYTES = 128 * 2**20


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """The keys and values of one layer."""

    is_sliding = False

    def __init__(self, cache: BatchedKVCache, like: LayerState) -> None:
        super().__init__()
        self._cache = cache
        self.blocks = tuple(tensor.new_zeros(0, tensor.shape[1], 0, tensor.shape[3]) for tensor in like)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Do nothing: the block exists."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> LayerState:
        """Write the columns of the running pass; returns views of all columns."""
        count, start = key_states.shape[0], self._cache.length
        end = start + key_states.shape[-2]
        keys, values = self.blocks
        keys[:count, :, start:end] = key_states
        values[:count, :, start:end] = value_states
        return keys[:count, :, :end], values[:count, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of columns that a pass attends over, and the first one."""
        return self._cache.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return the number of filled columns."""
        return self._cache.length

    def get_max_length(self) -> int:
        """Return -1: no limit."""
        return -1


class BatchedKVCache(Cache):  # type: ignore[misc]
    """A transformers cache over rows of different lengths."""

    def __init__(self, like: Sequence[LayerState]) -> None:
        """`like`: keys and values of any row, by layer, for their shapes and type."""
        super().__init__(layers=[_Layer(self, state) for state in like])
        self.length = 0
        """Filled columns."""
        self.starts: list[int] = []
        """First column of each row."""
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=like[0][0].device)
        """Attention mask of the whole block."""

    def mask(self) -> torch.Tensor | None:
        """Return the attention mask (rows, columns + 1) of the next step; None where every row begins at column 0."""
        return self._mask[: len(self.starts), : self.length + 1] if any(self.starts) else None

    def positions(self) -> list[list[int]]:
        """Return the position of each row's next token, as (rows, 1)."""
        return [[self.length - start] for start in self.starts]

    def add(self, states: Sequence[LayerState]) -> None:
        """Append a row, with the keys and values of its prompt by layer; shapes (1, heads, tokens, width)."""
        tokens = states[0][0].shape[-2]
        if not self.starts:
            self.length = 0
        self._shift(max(0, tokens - self.length))
        self.length = max(self.length, tokens)
        self._ensure(len(self.starts) + 1, self.length + 1)
        row, start = len(self.starts), self.length - tokens
        for layer, state in zip(self.layers, states, strict=True):
            for block, tensor in zip(layer.blocks, state, strict=True):
                block[row, :, start : self.length] = tensor[0]
        self.starts.append(start)
        self._mark(row)

    def remove(self, row: int) -> None:
        """Remove a row; the last row takes its place."""
        last = len(self.starts) - 1
        if row != last:
            for layer in self.layers:
                for block in layer.blocks:
                    block[row, :, : self.length] = block[last, :, : self.length]
            self.starts[row] = self.starts[last]
            self._mark(row)
        self.starts.pop()
        if self.starts and (least := min(self.starts)) and (len(self.starts) == 1 or 2 * least > self.length):
            self._shift(-least)

    def advance(self) -> None:
        """Count the column that a step has written, and make room for the next one."""
        self.length += 1
        self._ensure(len(self.starts), self.length + 1)

    def _shift(self, columns: int) -> None:
        """Move all rows by a number of columns, to the left if it is negative."""
        if not columns or not self.starts:
            return
        count, left = len(self.starts), max(0, -columns)
        self._ensure(count, self.length + columns + 1)
        for layer in self.layers:
            for block in layer.blocks:
                filled = block[:count, :, left : self.length].clone()
                block[:count, :, left + columns : self.length + columns] = filled
        self.length += columns
        self.starts = [start + columns for start in self.starts]
        for row in range(count):
            self._mark(row)

    def _mark(self, row: int) -> None:
        self._mask[row] = 1
        self._mask[row, : self.starts[row]] = 0

    def _ensure(self, rows: int, columns: int) -> None:
        """Grow the block to at least this size, keeping its content."""
        had_rows, had_columns = self._mask.shape
        if rows <= had_rows and columns <= had_columns:
            return
        more_rows = 0 if rows <= had_rows else (1 << (rows - 1).bit_length()) - had_rows
        more_columns = 0 if columns <= had_columns else max(columns + GROWTH, had_columns * 3 // 2) - had_columns
        for layer in self.layers:
            layer.blocks = tuple(pad(block, (0, 0, 0, more_columns, 0, 0, 0, more_rows)) for block in layer.blocks)
        self._mask = pad(self._mask, (0, more_columns, 0, more_rows), value=1)


def token_bytes(states: Sequence[LayerState]) -> int:
    """Return the bytes per cached token of one row."""
    return sum(t.shape[1] * t.shape[3] * t.element_size() for state in states for t in state)


@dataclass(eq=False)
class _Prompt:
    owner: weakref.ref[Slot] | None
    """The slot that read it; None for the bare base."""
    ids: Sequence[int]
    states: Sequence[LayerState]

    def belongs_to(self, slot: Slot | None) -> bool:
        """Return whether this version, or the bare base, read it; a prompt of an evicted version belongs to none."""
        return self.owner is None if slot is None else self.owner is not None and self.owner() is slot


class PrefixCache:
    """Keys and values of the latest prompts on a base, up to `PREFIX_BYTES`, by version. Used by one thread."""

    def __init__(self) -> None:
        self._prompts: list[_Prompt] = []

    def find(self, slot: Slot | None, ids: Sequence[int]) -> tuple[int, Sequence[LayerState]]:
        """Return the longest cached prefix of all `ids` but the last: its length and states by layer, or (0, ())."""
        best, length = None, SHORTEST_PREFIX - 1
        for prompt in self._prompts:
            if prompt.belongs_to(slot) and (common := _common(prompt.ids, ids[:-1])) > length:
                best, length = prompt, common
        if best is None:
            return 0, ()
        self._prompts.remove(best)
        self._prompts.append(best)
        return length, [(keys[:, :, :length], values[:, :, :length]) for keys, values in best.states]

    def keep(self, slot: Slot | None, ids: Sequence[int], states: Sequence[LayerState]) -> None:
        """Cache a whole prompt, in place of its prefixes."""
        if len(ids) < SHORTEST_PREFIX:
            return
        ids = tuple(ids)
        self._prompts = [
            prompt
            for prompt in self._prompts
            if not (prompt.belongs_to(slot) and prompt.ids == ids[: len(prompt.ids)])
            and (prompt.owner is None or prompt.owner() is not None)
        ]
        self._prompts.append(_Prompt(weakref.ref(slot) if slot else None, ids, states))
        sizes = [token_bytes(prompt.states) * len(prompt.ids) for prompt in self._prompts]
        while len(sizes) > 1 and sum(sizes) > PREFIX_BYTES:
            del self._prompts[0], sizes[0]


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Return the length of the common prefix."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
