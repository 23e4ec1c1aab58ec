"""Batched generation by transformers' own `generate`: for encoder-decoder bases, and for what `Decoding` cannot take.

Requests that arrive while a batch is being written form the next one. Each row has its own version, its own way of
choosing tokens, and its own end; a row whose reader has gone no longer keeps the others. A batch takes seconds, so it
is computed in a thread of its own, and not in the one where all others would wait for it (`serving/compute_thread.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from serving.base.base_model import Resident
from serving.base.mixed_batch import mixed
from serving.generation.request import Request
from serving.generation.request_queue import Line, failure
from serving.generation.sampler import Choice

log = logging.getLogger("graft")

ROWS = 8
"""Rows of a batch; a new one begins when all of them have ended."""


class Generating:
    """The generations of one resident base."""

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        # A decoder-only base that cannot decode rows of different lengths is asked one at a time.
        self._rows = ROWS if resident.config.is_encoder_decoder and resident.mixes else 1
        self._line = Line(self._run)

    def submit(self, request: Request) -> None:
        """Put a request behind those that wait; raises `BusyError`, and `ModelError` for tokens the base lacks."""
        self._resident.check(request.ids)
        self._line.join(request)

    def before(self, request: Request) -> int:
        """How many wait before a request; 0 for one that is being answered."""
        return self._line.before(request)

    def _run(self) -> None:
        while (batch := self._line.take(False, lambda taken, request: len(taken) < self._rows)) is not None:
            if batch:
                self._answer(batch)

    def _answer(self, batch: Sequence[Request]) -> None:
        try:
            self._generate(batch)
        except BaseException as error:  # every reader must hear of it
            log.exception("while generating")
            for request in batch:
                request.end(failure(error))
        else:
            for request in batch:
                request.end()

    @torch.inference_mode()
    def _generate(self, batch: Sequence[Request]) -> None:
        net, tokenizer = self._resident.net, self._resident.tokenizer
        width = max(len(request.ids) for request in batch)
        padded = [request.ids + [tokenizer.pad_token_id] * (width - len(request.ids)) for request in batch]
        inputs = torch.tensor(padded, device=self._resident.device)
        mask = torch.tensor([[1] * len(r.ids) + [0] * (width - len(r.ids)) for r in batch], device=inputs.device)
        choices = [Choice(net, request) for request in batch]
        writer = _Writer(batch, choices)
        with self._resident.using(mixed([request.slot for request in batch])):
            net.generate(
                inputs,
                attention_mask=mask,
                max_new_tokens=max(request.sampling.max_new_tokens for request in batch),
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                num_beams=1,
                pad_token_id=tokenizer.pad_token_id,
                streamer=writer,
                stopping_criteria=StoppingCriteriaList([_Ended(batch)]),
                logits_processor=LogitsProcessorList([_Sampled(batch, choices)]),
            )


class _Writer(BaseStreamer):  # type: ignore[misc]
    """Hands each row's tokens to its reader; what comes first is the prompt, or what a decoder begins with."""

    def __init__(self, batch: Sequence[Request], choices: Sequence[Choice]) -> None:
        self._batch, self._choices, self._first = batch, choices, True

    def put(self, value: torch.Tensor) -> None:
        if self._first:
            self._first = False
            return
        for request, choice, token in zip(self._batch, self._choices, value.tolist(), strict=True):
            if not request.left.is_set():
                if token in choice.ends or request.is_over:
                    request.end()
                    continue
                request.write(token)
                if len(request.written) >= request.sampling.max_new_tokens:
                    request.end()

    def end(self) -> None:
        """Whoever runs the batch ends what is left."""


class _Ended(StoppingCriteria):  # type: ignore[misc]
    """Ends the rows that nobody reads any more or that have written enough."""

    def __init__(self, batch: Sequence[Request]) -> None:
        self._batch = batch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        return torch.tensor(
            [request.left.is_set() or request.is_over for request in self._batch], device=input_ids.device
        )


class _Sampled(LogitsProcessor):  # type: ignore[misc]
    """Leaves one token to the rows that sample: so each has its own options and its own generator."""

    def __init__(self, batch: Sequence[Request], choices: Sequence[Choice]) -> None:
        self._sampling = [
            (i, request, choice)
            for i, (request, choice) in enumerate(zip(batch, choices, strict=True))
            if choice.samples
        ]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for i, request, choice in self._sampling:
            token = choice(request, scores[i : i + 1], warp_only=True)
            scores[i] = -torch.inf
            scores[i, token] = 0
        return scores
