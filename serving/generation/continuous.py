"""Continuous batching: generations on one causal base join and leave between steps (Orca; Yu et al., 2022).

A step computes one token for all rows, each with its own version. Between two steps waiting requests join, after their
prompts were read piece by piece (`prefill.py`), and those whose readers have gone leave. A thread submits turn after
turn as jobs of the compute thread, and ends when there is nothing to do, so that no thread references an idle base.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from transformers.cache_utils import DynamicCache

from models.transformers_private import has_plain_layers, layer_states, make_cache
from serving import compute_thread
from serving.base.base_model import BaseModel, adapter_of
from serving.base.slots import LayerAdapter, Slot
from serving.generation.kv_cache import BatchedKVCache, PrefixCache, token_bytes
from serving.generation.prefill import Prefill, PrefillRequest
from serving.generation.request_queue import Request, RequestQueue
from serving.generation.sampling import SamplingParams, TokenSampler
from store import quota

log = logging.getLogger("graft")

ROWS = {"cpu": 32, "cuda": 128}
"""Generations that run at the same time."""
CACHE_BYTES = 2 * 2**30
"""Limit of keys and values on a CPU; a quarter of its free memory where that is less."""
TOLERANCE = 0.05
"""Largest difference between a row's logits beside others and alone, as a share of their range."""


@dataclass(eq=False)
class _Row:
    request: Request
    sampler: TokenSampler
    token: int
    """The token written last."""


@dataclass
class _Batch:
    """The running generations."""

    prefill: Prefill
    rows: list[_Row] = field(default_factory=list)
    cache: BatchedKVCache | None = None
    adapter: LayerAdapter | None = None
    slots: list[Slot | None] = field(default_factory=list)
    """Slots of the rows for which `adapter` was made."""

    @property
    def requests(self) -> list[Request]:
        return [waiting.request for waiting in self.prefill.requests] + [row.request for row in self.rows]


class ContinuousBatching:
    """Generates for one base model."""

    def __init__(self, base: BaseModel) -> None:
        self._base, self._net = base, base.net
        self.queue = RequestQueue(self._run)
        self._prefixes = PrefixCache()
        self._most_bytes = _most_bytes(base.device)
        self._token_bytes = 0
        """Bytes per cached token of one row, measured by `self_check()`."""

    @torch.inference_mode()
    def self_check(self) -> bool:
        """Return whether this base computes rows of different lengths in one step as it computes each alone.

        Not a model that keeps a state of its own in place of keys and values, or takes no positions.
        """
        ids = self._base.tokenizer("The quick brown fox jumps over the lazy dog.")["input_ids"]
        if len(ids) < 6:
            return False
        try:
            prompts = [Request(prompt, SamplingParams(), None) for prompt in (ids[:5], ids[:3])]
            inputs = [torch.tensor([[*prompt.ids, ids[-1]]], device=self._base.device) for prompt in prompts]
            alone = torch.stack([self._net(each).logits[0, -1] for each in inputs])
            prefill = Prefill(self._base)
            first, *rows = [self._prefill_request(prompt, DynamicCache()) for prompt in (prompts[0], *prompts)]
            prefill.read([first], len(ids))
            if not has_plain_layers(first.cache):
                return False
            prefill.read(rows, len(ids))
            cache = BatchedKVCache(layer_states(first.cache))
            self._token_bytes = token_bytes(layer_states(first.cache))
            for row in reversed(rows):
                cache.add(layer_states(row.cache))
            beside = self._forward(cache, [ids[-1]] * 2)[[1, 0]]
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
            log.info("%s is answered one request at a time: %s", self._base.model.id, error)
            return False
        scale = (alone.max() - alone.min()).item()
        return bool((beside - alone).abs().max().item() <= TOLERANCE * scale)

    def _prefill_request(self, request: Request, cache: DynamicCache, read: int = 0) -> PrefillRequest:
        return PrefillRequest(request, TokenSampler(self._net, request.params, len(request.ids)), cache, read)

    def _run(self) -> None:
        batch = _Batch(Prefill(self._base))
        try:
            while compute_thread.run(partial(self._turn, batch)):
                pass
        except BaseException as error:  # every reader must hear of it
            for request in batch.requests:
                request.end(error)
            raise

    @torch.inference_mode()
    def _turn(self, batch: _Batch) -> bool:
        """Let requests join and leave, read prompts, and make one step; returns whether there may be more to do."""
        taken = self.queue.take(bool(batch.requests), partial(self._fits, batch))
        if taken is None:
            return False
        for request in taken:
            self._join(batch, request)
        for waiting in [waiting for waiting in batch.prefill.requests if waiting.request.is_over]:
            batch.prefill.requests.remove(waiting)
            waiting.request.end()
        self._leave(batch, [row.request.is_over for row in batch.rows])
        if batch.prefill.requests:
            self._read(batch, batch.prefill.choose(bool(batch.rows)))
        if batch.rows:
            self._step(batch)
        return True

    def _fits(self, batch: _Batch, taken: Sequence[Request], request: Request) -> bool:
        """Return whether a request may run beside those that run and those taken with it; one may always run."""
        requests = [*batch.requests, *taken, request]
        longest = max(len(each.ids) + each.params.max_new_tokens for each in requests)
        size = len(requests) * longest * self._token_bytes
        rows = ROWS.get(self._base.device.type, ROWS["cpu"])
        return len(requests) == 1 or (len(requests) <= rows and size <= self._most_bytes)

    def _join(self, batch: _Batch, request: Request) -> None:
        """Start to read a prompt behind its cached prefix; an error ends this request alone."""
        try:
            length, states = self._prefixes.find(request.slot, request.ids)
            batch.prefill.requests.append(self._prefill_request(request, make_cache(states), length))
        except Exception as error:
            log.exception("a request could not begin")
            request.end(error)

    def _read(self, batch: _Batch, chosen: Sequence[PrefillRequest]) -> None:
        """Read the next pieces of these prompts; a prompt that is read to its end becomes a row."""
        try:
            logits = batch.prefill.read(chosen, batch.prefill.most_tokens(bool(batch.rows)))
        except Exception as error:
            if len(chosen) > 1:  # it may be one of them alone
                for waiting in chosen:
                    self._read(batch, [waiting])
                return
            log.exception("a prompt could not be read")
            batch.prefill.requests.remove(chosen[0])
            chosen[0].request.end(error)
            return
        for i, waiting in enumerate(chosen):
            if not waiting.left:
                self._begin(batch, waiting, logits[i : i + 1])
                batch.prefill.requests.remove(waiting)  # not before: whatever fails, its reader must hear of it

    def _begin(self, batch: _Batch, prompt: PrefillRequest, logits: torch.Tensor) -> None:
        """Write the first token of an answer, and make it a row."""
        states = layer_states(prompt.cache)
        self._prefixes.keep(prompt.request.slot, prompt.request.ids, states)
        row = _Row(prompt.request, prompt.sampler, 0)
        if self._write(row, self._next_tokens([row], logits)[0]):
            batch.cache = batch.cache or BatchedKVCache(states)
            batch.cache.add(states)
            batch.rows.append(row)
        else:
            row.request.end()

    def _step(self, batch: _Batch) -> None:
        """Compute one token for every row; rows that have ended leave."""
        assert batch.cache is not None  # noqa: S101 - there are rows
        slots = [row.request.slot for row in batch.rows]
        if [id(slot) for slot in slots] != [id(slot) for slot in batch.slots]:
            batch.slots, batch.adapter = slots, adapter_of(slots)
        with self._base.using(batch.adapter):
            logits = self._forward(batch.cache, [row.token for row in batch.rows])
        tokens = self._next_tokens(batch.rows, logits)
        self._leave(batch, [not self._write(row, token) for row, token in zip(batch.rows, tokens, strict=True)])

    def _forward(self, cache: BatchedKVCache, tokens: Sequence[int]) -> torch.Tensor:
        """Run a step over one token of each row; returns logits (rows, vocabulary)."""
        device = self._base.device
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

    def _next_tokens(self, rows: Sequence[_Row], logits: torch.Tensor) -> list[int]:
        """Choose each row's next token; one call for all that take the likeliest."""
        likeliest: list[int] = logits.argmax(-1).tolist()
        return [
            likeliest[i]
            if row.sampler.is_greedy
            else row.sampler([*row.request.ids, *row.request.written], logits[i : i + 1])
            for i, row in enumerate(rows)
        ]

    def _write(self, row: _Row, token: int) -> bool:
        """Write a token to the row's request; returns whether the row goes on."""
        row.token, request = token, row.request
        if token in row.sampler.ends:
            return False
        request.write(token)
        return len(request.written) < request.params.max_new_tokens

    def _leave(self, batch: _Batch, leaving: Sequence[bool]) -> None:
        """Remove the marked rows; the last row takes the place of each, in the cache as in the list."""
        for i in reversed(range(len(leaving))):
            if leaving[i]:
                assert batch.cache is not None  # noqa: S101 - there are rows
                batch.cache.remove(i)
                row, last = batch.rows[i], batch.rows.pop()
                if row is not last:
                    batch.rows[i] = last
                row.request.end()
        if not batch.rows:
            batch.cache, batch.slots, batch.adapter = None, [], None


def _most_bytes(device: torch.device) -> int:
    """Return the limit of keys and values in bytes: on a GPU half of its free memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] // 2)
    return min(CACHE_BYTES, quota.free_memory() // 4)
