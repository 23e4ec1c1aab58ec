"""Keys and values of generations that run side by side, in one block of memory that rows join and leave.

Every row ends at the same column, so that a step writes one column and all rows attend over a view; shorter rows are
masked at their beginning (left padding). A step copies nothing: a row that joins is written into its place, the last
row moves into the place of one that leaves, and only growing beyond the block copies it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from serving.base.slots import Slot

SPARE = 64
"""Columns that a block has at least beyond what is asked of it."""

State = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each of shape (rows, heads, tokens, width)."""


class _Layer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's part of the block."""

    is_sliding = False

    def __init__(self, rows: RowsCache, like: State) -> None:
        super().__init__()
        self._rows = rows
        self.blocks = tuple(tensor.new_zeros(0, tensor.shape[1], 0, tensor.shape[3]) for tensor in like)

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """There is nothing to prepare: the block is there."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> State:
        """Write the running pass's columns and return views of all there are."""
        count, start = key_states.shape[0], self._rows.length
        end = start + key_states.shape[-2]
        keys, values = self.blocks
        keys[:count, :, start:end] = key_states
        values[:count, :, start:end] = value_states
        return keys[:count, :, :end], values[:count, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that a pass attends over, and where they begin."""
        return self._rows.length + query_length, 0

    def get_seq_length(self) -> int:
        """Columns that are filled."""
        return self._rows.length

    def get_max_length(self) -> int:
        """No limit."""
        return -1


class RowsCache(Cache):  # type: ignore[misc]
    """A transformers cache over rows of different lengths."""

    def __init__(self, like: Sequence[State]) -> None:
        """`like`: what one layer after the other holds for any row; only its shapes matter."""
        super().__init__(layers=[_Layer(self, state) for state in like])
        self.bytes_of_token = self.row_bytes(like)
        """Of one row."""
        self.length = 0
        self.starts: list[int] = []
        """The first column of each row."""
        device = like[0][0].device
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=device)

    @staticmethod
    def row_bytes(like: Sequence[State]) -> int:
        """Bytes that one token of one row takes."""
        return sum(t.shape[1] * t.shape[3] * t.element_size() for state in like for t in state)

    @property
    def room(self) -> tuple[int, int]:
        """Rows and columns that the block has."""
        return self._mask.shape[0], self._mask.shape[1]

    def mask(self) -> torch.Tensor | None:
        """The attention mask (rows, columns + 1) of the next step; None where every row begins in the first column."""
        return self._mask[: len(self.starts), : self.length + 1] if any(self.starts) else None

    def positions(self) -> list[list[int]]:
        """The position of each row's next token, as (rows, 1)."""
        return [[self.length - start] for start in self.starts]

    def add(self, states: Sequence[State]) -> None:
        """A row joins, behind the others, with what its prompt left in each layer: shapes (1, heads, tokens, width)."""
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
        """A row leaves; the last row takes its place."""
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
        """A step has written its column; make sure that there is one for the next."""
        self.length += 1
        self._ensure(len(self.starts), self.length + 1)

    def _shift(self, columns: int) -> None:
        """Move what all rows hold to the right by so many columns (to the left, if below 0)."""
        if not columns or not self.starts:
            return
        count, left = len(self.starts), max(0, -columns)
        self._ensure(count, self.length + columns + 1)
        for layer in self.layers:
            for block in layer.blocks:
                held = block[:count, :, left : self.length].clone()
                block[:count, :, left + columns : self.length + columns] = held
        self.length += columns
        self.starts = [start + columns for start in self.starts]
        for row in range(count):
            self._mark(row)

    def _mark(self, row: int) -> None:
        self._mask[row] = 1
        self._mask[row, : self.starts[row]] = 0

    def _ensure(self, rows: int, columns: int) -> None:
        """Make the block at least so large; what it holds stays."""
        had_rows, had_columns = self.room
        if rows <= had_rows and columns <= had_columns:
            return
        new_rows = had_rows if rows <= had_rows else 1 << (rows - 1).bit_length()
        new_columns = had_columns if columns <= had_columns else max(columns + SPARE, had_columns * 3 // 2)
        for layer in self.layers:
            layer.blocks = tuple(_grown(block, new_rows, new_columns) for block in layer.blocks)
        mask = self._mask.new_ones(new_rows, new_columns)
        mask[:had_rows, :had_columns] = self._mask
        self._mask = mask


def _grown(block: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    grown = block.new_zeros(rows, block.shape[1], columns, block.shape[3])
    grown[: block.shape[0], :, : block.shape[2]] = block
    return grown


LEAST = 16
"""Tokens in common that are worth it."""
MOST_BYTES = 128 * 2**20


@dataclass(eq=False)
class _Entry:
    slot: Callable[[], Slot | None]
    ids: Sequence[int]
    states: Sequence[State]

    def belongs_to(self, slot: Slot | None) -> bool:
        """Whether this very version made it; what is left of one that is gone belongs to none, least to the base."""
        return self.slot is _no_slot if slot is None else self.slot() is slot

    @property
    def size(self) -> int:
        return RowsCache.row_bytes(self.states) * len(self.ids)


class Prefixes:
    """The newest prompts of all versions of a base, up to `MOST_BYTES`. Used by one thread."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def find(self, slot: Slot | None, ids: Sequence[int]) -> tuple[int, Sequence[State]]:
        """How many of the first tokens are known, and what they left in each layer; (0, ()) where it is too few."""
        best, length = None, LEAST - 1
        for entry in self._entries:
            if entry.belongs_to(slot) and (common := _common(entry.ids, ids[:-1])) > length:
                best, length = entry, common
        if best is None:
            return 0, ()
        self._entries.remove(best)
        self._entries.append(best)
        return length, [(keys[:, :, :length], values[:, :, :length]) for keys, values in best.states]

    def keep(self, slot: Slot | None, ids: Sequence[int], states: Sequence[State]) -> None:
        """Keep what a whole prompt left; it takes the place of its own beginning."""
        if len(ids) < LEAST:
            return
        owner: Callable[[], Slot | None] = weakref.ref(slot) if slot else _no_slot
        ids = tuple(ids)
        self._entries = [
            entry
            for entry in self._entries
            if not (entry.belongs_to(slot) and entry.ids == ids[: len(entry.ids)])
            and (entry.slot is _no_slot or entry.slot() is not None)
        ]
        self._entries.append(_Entry(owner, ids, states))
        while len(self._entries) > 1 and sum(entry.size for entry in self._entries) > MOST_BYTES:
            del self._entries[0]


def _no_slot() -> None:
    """The owner of what the bare base made."""


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens are the same."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
