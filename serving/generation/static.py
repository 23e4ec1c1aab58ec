"""Static batching by transformers' own `generate`: for encoder-decoder bases, and where continuous batching fails.

Requests that arrive while a batch is generated form the next one. Each row has its own version, sampling and end; a
batch does not wait for a row whose reader has gone. It takes seconds, so it runs in a thread of its own and not in the
compute thread, where all other jobs would wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from serving.base.base_model import BaseModel, adapter_of
from serving.generation.request_queue import Request, RequestQueue
from serving.generation.sampling import SamplingParams, TokenSampler

log = logging.getLogger("graft")

ROWS = 8
"""Largest number of rows of a batch; the next one begins when all have ended."""


class StaticBatching:
    """Generates for one base model, batch after batch."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        # A decoder-only base that cannot decode rows of different lengths is asked one at a time.
        self._rows = ROWS if base.config.is_encoder_decoder and base.mixes else 1
        self.queue = RequestQueue(self._run)

    def _run(self) -> None:
        while (batch := self.queue.take(False, lambda taken, request: len(taken) < self._rows)) is not None:
            failed = None
            try:
                if batch:
                    self._generate(batch)
            except BaseException as error:  # every reader must hear of it
                log.exception("while generating")
                failed = error
            for request in batch:
                request.end(failed)

    @torch.inference_mode()
    def _generate(self, batch: Sequence[Request]) -> None:
        net, tokenizer = self._base.net, self._base.tokenizer
        prompts = {"input_ids": [request.ids for request in batch]}
        inputs = tokenizer.pad(prompts, padding_side="right", return_tensors="pt").to(self._base.device)
        samplers = [TokenSampler(net, request.params, len(request.ids)) for request in batch]
        longest = max(request.params.max_new_tokens for request in batch)
        with self._base.using(adapter_of([request.slot for request in batch])):
            net.generate(
                inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                pad_token_id=tokenizer.pad_token_id,
                streamer=_Streamer(batch, samplers),
                stopping_criteria=StoppingCriteriaList([_RowsEnded(batch)]),
                logits_processor=LogitsProcessorList([_RowSamplers(batch, samplers)]),
                top_k=None,  # of the base's own configuration; the samplers of the rows choose
                **SamplingParams(longest, temperature=0.0).arguments(),
            )


@dataclass(eq=False)
class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Writes each row's tokens to its request, but for the first put: the prompt, or the decoder's start token."""

    batch: Sequence[Request]
    samplers: Sequence[TokenSampler]
    first: bool = True

    def put(self, value: torch.Tensor) -> None:
        if self.first:
            self.first = False
            return
        for request, sampler, token in zip(self.batch, self.samplers, value.tolist(), strict=True):
            if not request.finished.is_set():
                if token in sampler.ends or request.is_over:
                    request.end()
                    continue
                request.write(token)
                if len(request.written) >= request.params.max_new_tokens:
                    request.end()

    def end(self) -> None:
        """Do nothing: `_run` ends all requests."""


@dataclass(eq=False)
class _RowsEnded(StoppingCriteria):  # type: ignore[misc]
    """Stops rows whose request has ended or whose reader has gone."""

    batch: Sequence[Request]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        ended = [request.finished.is_set() or request.is_over for request in self.batch]
        return torch.tensor(ended, device=input_ids.device)


@dataclass(eq=False)
class _RowSamplers(LogitsProcessor):  # type: ignore[misc]
    """Samples each row with its own options and random generator, and leaves `generate` no other token to choose."""

    batch: Sequence[Request]
    samplers: Sequence[TokenSampler]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        for i, (request, sampler) in enumerate(zip(self.batch, self.samplers, strict=True)):
            if sampler.samples:
                token = sampler([*request.ids, *request.written], scores[i : i + 1], warp_only=True)
                scores[i] = -torch.inf
                scores[i, token] = 0
        return scores
