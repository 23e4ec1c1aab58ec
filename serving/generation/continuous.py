"""Continuous batching: generations on one causal base join and leave between steps (Orca; Yu et al., 2022).

A step computes one token for all rows, each with its own version; between two steps requests that wait join, a bounded
piece of their prompts at a time (`prefill.py`), and those whose readers have gone leave. One thread asks for
turn after turn, each a job of `compute_thread.py`, and ends when there is nothing to do, so that an idle base is held
by nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers.cache_utils import DynamicCache, DynamicLayer

from serving import compute_thread
from serving.base.base_model import Resident
from serving.base.mixed_batch import mixed
from serving.base.slots import Adapting, Slot
from serving.generation.kv_cache import Prefixes, RowsCache
from serving.generation.prefill import Joiner, Reading, holding, states_of
from serving.generation.request import Request
from serving.generation.request_queue import Line, failure
from serving.generation.sampler import Choice
from serving.generation.sampling import Sampling
from store import quota

log = logging.getLogger("graft")

ROWS = {"cpu": 32, "cuda": 128}
"""Generations that run at the same time."""
CACHE_BYTES = 2 * 2**30
"""Keys and values of all rows together take at most this on a CPU, and a quarter of what is free; on a GPU half of it.

One row may always run.
"""
TOLERANCE = 0.05
"""Of the range of logits: what a row beside others may differ by from the row alone. See `Decoding.proven`."""


@dataclass(eq=False)
class _Row:
    request: Request
    choice: Choice
    token: int


@dataclass
class _Batch:
    """What is being generated."""

    reading: Reading
    rows: list[_Row] = field(default_factory=list)
    cache: RowsCache | None = None
    adapting: Adapting | None = None
    slots: list[Slot | None] = field(default_factory=list)

    @property
    def requests(self) -> list[Request]:
        return [joiner.request for joiner in self.reading.joining] + [row.request for row in self.rows]


class Decoding:
    """The generations of one resident base."""

    def __init__(self, resident: Resident) -> None:
        self._resident, self._net = resident, resident.net
        self._line = Line(self._run)
        self._prefixes = Prefixes()
        self._most_bytes = _most_bytes(resident.device)
        self._token_bytes = 0
        """Of one row's token in the cache; `proven` finds out."""

    def submit(self, request: Request) -> None:
        """Put a request behind those that wait; raises `BusyError`, and `ModelError` for tokens the base lacks."""
        self._resident.check(request.ids)
        self._line.join(request)

    def before(self, request: Request) -> int:
        """How many wait before a request; 0 for one that is being answered."""
        return self._line.before(request)

    @torch.inference_mode()
    def proven(self) -> bool:
        """Whether this base answers rows of different lengths in one step as it answers each alone.

        Not so where a model keeps a state of its own in place of keys and values, or takes no positions.
        """
        ids = self._resident.tokenizer("The quick brown fox jumps over the lazy dog.")["input_ids"]
        if len(ids) < 6:
            return False
        try:
            asked = [Request(some, Sampling(), None) for some in (ids[:5], ids[:3])]
            alone = torch.stack([self._net(torch.tensor([[*request.ids, ids[-1]]], device=self._resident.device))
                                 .logits[0, -1] for request in asked])  # fmt: skip
            reading = Reading(self._resident)
            first, *rows = [Joiner(each, Choice(self._net, each), DynamicCache()) for each in (asked[0], *asked)]
            reading.read([first], len(ids))
            if any(type(layer) is not DynamicLayer for layer in first.cache.layers):
                return False
            reading.read(rows, len(ids))
            cache = RowsCache(states_of(first.cache))
            self._token_bytes = cache.bytes_of_token
            for row in reversed(rows):
                cache.add(states_of(row.cache))
            beside = self._forward(cache, [ids[-1]] * 2)[[1, 0]]
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
            log.info("%s is answered one request at a time: %s", self._resident.model.id, error)
            return False
        scale = (alone.max() - alone.min()).item()
        return bool((beside - alone).abs().max().item() <= TOLERANCE * scale)

    def _run(self) -> None:
        batch = _Batch(Reading(self._resident))
        try:
            while compute_thread.run(partial(self._turn, batch)):
                pass
        except BaseException as error:  # every reader must hear of it
            for request in batch.requests:
                request.end(failure(error))
            raise

    @torch.inference_mode()
    def _turn(self, batch: _Batch) -> bool:
        """Join, leave, read on in prompts, and one step for all rows; whether there may be more to do."""
        taken = self._line.take(bool(batch.requests), partial(self._fits, batch))
        if taken is None:
            return False
        for request in taken:
            self._join(batch, request)
        for joiner in [joiner for joiner in batch.reading.joining if joiner.request.is_over]:
            batch.reading.joining.remove(joiner)
            joiner.request.end()
        self._leave(batch, [row.request.is_over for row in batch.rows])
        if batch.reading.joining:
            self._read(batch, batch.reading.choose(bool(batch.rows)))
        if batch.rows:
            self._step(batch)
        return True

    def _fits(self, batch: _Batch, taken: Sequence[Request], request: Request) -> bool:
        """Whether a request may run beside those that run and those that are taken with it."""
        requests = [*batch.requests, *taken, request]
        longest = max(len(each.ids) + each.sampling.max_new_tokens for each in requests)
        size = len(requests) * longest * self._token_bytes
        rows = ROWS.get(self._resident.device.type, ROWS["cpu"])
        return len(requests) == 1 or (len(requests) <= rows and size <= self._most_bytes)

    def _join(self, batch: _Batch, request: Request) -> None:
        """Begin to read a prompt, behind what is known of it; what fails is this request alone."""
        try:
            known, states = self._prefixes.find(request.slot, request.ids)
            batch.reading.joining.append(Joiner(request, Choice(self._net, request), holding(states), known))
        except Exception as error:
            log.exception("a request could not begin")
            request.end(failure(error))

    def _read(self, batch: _Batch, joiners: Sequence[Joiner]) -> None:
        """Read on in these prompts; whose prompt is read begins to be answered."""
        try:
            logits = batch.reading.read(joiners, batch.reading.most(bool(batch.rows)))
        except Exception as error:
            if len(joiners) > 1:  # it may be one of them alone
                for joiner in joiners:
                    self._read(batch, [joiner])
                return
            log.exception("a prompt could not be read")
            batch.reading.joining.remove(joiners[0])
            joiners[0].request.end(failure(error))
            return
        for i, joiner in enumerate(joiners):
            if not joiner.left:
                self._begin(batch, joiner, logits[i : i + 1])
                batch.reading.joining.remove(joiner)  # not before: whatever fails, its reader must hear of it

    def _begin(self, batch: _Batch, joiner: Joiner, logits: torch.Tensor) -> None:
        """A prompt is read: its first token is chosen, and it takes its place among the rows."""
        states = states_of(joiner.cache)
        self._prefixes.keep(joiner.request.slot, joiner.request.ids, states)
        row = _Row(joiner.request, joiner.choice, 0)
        if self._write(row, self._chosen([row], logits)[0]):
            batch.cache = batch.cache or RowsCache(states)
            batch.cache.add(states)
            batch.rows.append(row)
        else:
            row.request.end()

    def _step(self, batch: _Batch) -> None:
        """One token for every row; those that have ended leave."""
        assert batch.cache is not None  # noqa: S101 - there are rows
        slots = [row.request.slot for row in batch.rows]
        if [id(slot) for slot in slots] != [id(slot) for slot in batch.slots] or len(slots) != len(batch.slots):
            batch.slots, batch.adapting = slots, mixed(slots)
        with self._resident.using(batch.adapting):
            logits = self._forward(batch.cache, [row.token for row in batch.rows])
        chosen = self._chosen(batch.rows, logits)
        self._leave(batch, [not self._write(row, token) for row, token in zip(batch.rows, chosen, strict=True)])

    def _forward(self, cache: RowsCache, tokens: Sequence[int]) -> torch.Tensor:
        """Logits (rows, vocabulary) of a step."""
        device = self._resident.device
        outputs = self._net(
            torch.tensor([[token] for token in tokens], device=device),
            attention_mask=cache.mask(),
            position_ids=torch.tensor(cache.positions(), device=device),
            past_key_values=cache,
            use_cache=True,
        )
        cache.advance()
        logits: torch.Tensor = outputs.logits[:, -1]
        return logits

    def _chosen(self, rows: Sequence[_Row], logits: torch.Tensor) -> list[int]:
        """Each row's next token; one call for all that take the likeliest."""
        likeliest: list[int] = logits.argmax(-1).tolist()
        return [
            likeliest[i] if row.choice.is_plain else row.choice(row.request, logits[i : i + 1])
            for i, row in enumerate(rows)
        ]

    def _write(self, row: _Row, token: int) -> bool:
        """Hand a token to the reader; whether the row goes on."""
        row.token, request = token, row.request
        if token in row.choice.ends:
            return False
        request.write(token)
        return len(request.written) < request.sampling.max_new_tokens

    def _leave(self, batch: _Batch, leaving: Sequence[bool]) -> None:
        """Free the rows that are marked; the last row takes the place of each, in the cache as in the list."""
        for i in reversed(range(len(leaving))):
            if leaving[i]:
                assert batch.cache is not None  # noqa: S101 - there are rows
                batch.cache.remove(i)
                row, last = batch.rows[i], batch.rows.pop()
                if row is not last:
                    batch.rows[i] = last
                row.request.end()
        if not batch.rows:
            batch.cache, batch.slots, batch.adapting = None, [], None


def _most_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    return min(CACHE_BYTES, quota.free_memory() // 4)
