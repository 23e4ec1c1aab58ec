"""What prompts left in the cache, kept for the next prompt of the same version that begins alike.

A system prompt, or the earlier turns of a conversation, are computed once. What one version made is never found by
another: an entry belongs to the slot itself, and goes with it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.rows_cache import RowsCache, State
from serving.slot import Slot

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
