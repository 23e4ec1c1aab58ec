"""Prompts on their way into the cache: read in pieces between two steps, several short ones in one pass.

A pass has a bounded number of tokens, so that those who are being answered wait no longer for those who come. Prompts
in one pass are padded on the right: a causal model never looks there, so each is read as it would be alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache

from serving.base.base_model import Resident
from serving.base.mixed_batch import mixed
from serving.generation.kv_cache import State
from serving.generation.request import Request
from serving.generation.sampler import Choice

PIECE, PIECE_ALONE = {"cpu": 128, "cuda": 2048}, {"cpu": 512, "cuda": 8192}
"""Tokens that are read between two steps, padding counted; more where nobody is kept waiting by it."""
TURN = 4
"""Of so many passes one is of whoever joined first, the others of whoever has least left to read."""


@dataclass(eq=False)
class Joiner:
    """A request whose prompt is being read."""

    request: Request
    choice: Choice
    cache: DynamicCache
    """What the tokens that are read left."""
    read: int = 0

    @property
    def left(self) -> int:
        """Tokens of the prompt that are not read."""
        return len(self.request.ids) - self.read


class Reading:
    """The prompts that are being read on one base. Used by one thread."""

    def __init__(self, resident: Resident) -> None:
        self._resident, self._net = resident, resident.net
        self.joining: list[Joiner] = []
        self._passes = 0
        self._keeps = "logits_to_keep" in inspect.signature(self._net.forward).parameters

    def choose(self, busy: bool) -> list[Joiner]:
        """Whose turn it is, by version: a short prompt is not kept waiting by a long one, nor the long one for ever.

        `busy`: whether others are being answered meanwhile. Those who are chosen have as much behind them.
        """
        self._passes += 1
        waiting = sorted(self.joining, key=lambda joiner: joiner.left)
        first = self.joining[0] if self._passes % TURN == 0 else waiting[0]
        chosen, longest = [first], first.left
        for joiner in waiting:
            longest = max(longest, joiner.left)
            if (len(chosen) + 1) * longest > self.most(busy):
                break
            if joiner is not first and joiner.read == first.read:
                chosen.append(joiner)
        return sorted(chosen, key=lambda joiner: id(joiner.request.slot))

    def most(self, busy: bool) -> int:
        """Tokens of a pass."""
        sizes = PIECE if busy else PIECE_ALONE
        return sizes.get(self._resident.device.type, sizes["cpu"])

    def read(self, joiners: Sequence[Joiner], most: int) -> torch.Tensor:
        """Read on in prompts that have as much behind them, each at most so many tokens.

        Returns the logits (prompts, vocabulary) after the last token that was read of each.
        """
        pieces = [joiner.request.ids[joiner.read :][:most] for joiner in joiners]
        longest = max(map(len, pieces))
        device = self._resident.device
        inputs = torch.tensor([piece + piece[-1:] * (longest - len(piece)) for piece in pieces], device=device)
        cache = joiners[0].cache if len(joiners) == 1 else _joint([joiner.cache for joiner in joiners])
        ends = sorted({len(piece) - 1 for piece in pieces})
        kept = {"logits_to_keep": torch.tensor(ends, device=device)} if self._keeps else {}
        with self._resident.using(mixed([joiner.request.slot for joiner in joiners])):
            logits: torch.Tensor = self._net(inputs, past_key_values=cache, use_cache=True, **kept).logits
        for row, (joiner, piece) in enumerate(zip(joiners, pieces, strict=True)):
            joiner.read += len(piece)
            joiner.cache = cache if len(joiners) == 1 else holding(_row(cache, row, joiner.read))
        places = [ends.index(len(piece) - 1) if self._keeps else len(piece) - 1 for piece in pieces]
        return logits[list(range(len(pieces))), places]


def states_of(cache: DynamicCache) -> list[State]:
    """Keys and values, by layer."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def holding(states: Sequence[State]) -> DynamicCache:
    """A cache with these keys and values, by layer; a copy of them."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(states):
        cache.update(keys, values, layer)
    return cache


def _joint(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Rows side by side that have as many tokens."""
    layers = zip(*map(states_of, caches), strict=True)
    return holding([(torch.cat([k for k, _ in rows]), torch.cat([v for _, v in rows])) for rows in layers])


def _row(cache: DynamicCache, row: int, tokens: int) -> list[State]:
    """What one row of several left."""
    return [(keys[row : row + 1, :, :tokens], values[row : row + 1, :, :tokens]) for keys, values in states_of(cache)]
