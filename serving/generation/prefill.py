"""Prefill: prompts are read into key-value caches between decoding steps, in pieces, several short ones in one pass.

A pass has a limited number of tokens, so that running answers never wait long for new prompts. The prompts of a pass
are padded on the right, where a causal model never looks, so each is read as it would be alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache

from models.transformers_private import LayerState, layer_states, make_cache
from serving.base.base_model import BaseModel, adapter_of
from serving.generation.request_queue import Request
from serving.generation.sampling import TokenSampler

PIECE, PIECE_ALONE = {"cpu": 128, "cuda": 2048}, {"cpu": 512, "cuda": 8192}
"""Tokens of a pass, padding counted, while answers are running and while none is."""
FAIR = 4
"""Every `FAIR`-th pass reads the oldest prompt, all others the one with the fewest tokens left."""


@dataclass(eq=False)
class PrefillRequest:
    """A request whose prompt is being read."""

    request: Request
    sampler: TokenSampler
    cache: DynamicCache
    """Keys and values of the tokens read so far."""
    read: int = 0

    @property
    def left(self) -> int:
        """Tokens of the prompt still to be read."""
        return len(self.request.ids) - self.read


class Prefill:
    """The prompts that are being read on one base model. Used by one thread."""

    def __init__(self, base: BaseModel) -> None:
        self._base, self._net = base, base.net
        self.requests: list[PrefillRequest] = []
        self._passes = 0
        self._selects_logits = "logits_to_keep" in inspect.signature(self._net.forward).parameters

    def choose(self, busy: bool) -> list[PrefillRequest]:
        """Choose the prompts of the next pass, in the order of their versions: short ones, without starving long ones.

        `busy`: whether answers are running. All chosen prompts have the same number of tokens prefilled.
        """
        self._passes += 1
        shortest = sorted(self.requests, key=lambda waiting: waiting.left)
        first = self.requests[0] if self._passes % FAIR == 0 else shortest[0]
        chosen, longest = [first], first.left
        for waiting in shortest:
            longest = max(longest, waiting.left)
            if (len(chosen) + 1) * longest > self.most_tokens(busy):
                break
            if waiting is not first and waiting.read == first.read:
                chosen.append(waiting)
        return sorted(chosen, key=lambda waiting: id(waiting.request.slot))

    def most_tokens(self, busy: bool) -> int:
        """Return the limit of a pass in tokens."""
        sizes = PIECE if busy else PIECE_ALONE
        return sizes.get(self._base.device.type, sizes["cpu"])

    def read(self, chosen: Sequence[PrefillRequest], most: int) -> torch.Tensor:
        """Read at most `most` further tokens of prompts that have the same number of tokens prefilled.

        Returns the logits (prompts, vocabulary) behind the last token read of each.
        """
        pieces = [waiting.request.ids[waiting.read :][:most] for waiting in chosen]
        longest = max(map(len, pieces))
        device = self._base.device
        inputs = torch.tensor([piece + piece[-1:] * (longest - len(piece)) for piece in pieces], device=device)
        cache = chosen[0].cache if len(chosen) == 1 else _stacked([waiting.cache for waiting in chosen])
        ends = sorted({len(piece) - 1 for piece in pieces})
        kept = {"logits_to_keep": torch.tensor(ends, device=device)} if self._selects_logits else {}
        with self._base.using(adapter_of([waiting.request.slot for waiting in chosen])):
            logits: torch.Tensor = self._net(inputs, past_key_values=cache, use_cache=True, **kept).logits
        for row, (waiting, piece) in enumerate(zip(chosen, pieces, strict=True)):
            waiting.read += len(piece)
            waiting.cache = cache if len(chosen) == 1 else make_cache(_row(cache, row, waiting.read))
        places = [ends.index(len(piece) - 1) if self._selects_logits else len(piece) - 1 for piece in pieces]
        return logits[list(range(len(pieces))), places]


def _stacked(caches: Sequence[DynamicCache]) -> DynamicCache:
    """Join the rows of caches of equal length."""
    layers = zip(*map(layer_states, caches), strict=True)
    return make_cache([(torch.cat([k for k, _ in rows]), torch.cat([v for _, v in rows])) for rows in layers])


def _row(cache: DynamicCache, row: int, tokens: int) -> list[LayerState]:
    """Return the first tokens of one row."""
    return [
        (keys[row : row + 1, :, :tokens], values[row : row + 1, :, :tokens]) for keys, values in layer_states(cache)
    ]
