"""How one request's next token is chosen: transformers' own logits processors, and a generator of the request's own.

Two things are done otherwise than in `generate`, with the same law: top-p looks among the likeliest tokens first, and a
token is drawn by one random number. Sorting and drawing from a vocabulary of 49,152 takes 10 ms on a CPU, for each row
and step, where a step of SmolLM2 takes 90; this takes less than one.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import TopPLogitsWarper

from serving.generation.request import Request

LIKELIEST = 512
"""Tokens among which top-p is looked for; where they do not have enough probability, all are sorted."""


class Choice:
    """One request's way of choosing. Its generator makes a seed mean the same whoever else is answered."""

    def __init__(self, net: Any, request: Request) -> None:  # noqa: ANN401 - a transformers model
        config, _ = net._prepare_generation_config(None, **request.sampling.arguments())
        net._prepare_special_tokens(config, True, device=net.device)
        self._processors = net._get_logits_processor(
            config, input_ids_seq_length=len(request.ids), device=net.device, model_kwargs={}
        )
        self._nucleus: TopPLogitsWarper | None = None
        if self._processors and type(self._processors[-1]) is TopPLogitsWarper:
            self._nucleus = self._processors.pop()
        self.samples = bool(config.do_sample)
        self.ends = frozenset(_listed(config.eos_token_id))
        self._generator = torch.Generator(net.device)
        if request.sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(request.sampling.seed)

    @property
    def is_plain(self) -> bool:
        """Whether it takes the likeliest token as the model gives it."""
        return not self.samples and not self._processors

    def __call__(self, request: Request, logits: torch.Tensor, warp_only: bool = False) -> int:
        """The next token, from logits (1, vocabulary); `warp_only`: all but sampling's own is done to them."""
        held = torch.tensor([request.ids + request.written], device=logits.device)
        scores = logits.float()
        for processor in self._processors:
            if not warp_only or type(processor).__name__.endswith("Warper"):
                scores = processor(held, scores)
        return self._drawn(held, scores) if self.samples else int(scores.argmax(-1))

    def _drawn(self, held: torch.Tensor, scores: torch.Tensor) -> int:
        probabilities = scores.softmax(-1)[0]
        if self._nucleus is not None:
            likeliest, tokens = probabilities.topk(min(LIKELIEST, len(probabilities)))
            before = likeliest.cumsum(0) - likeliest
            if before[-1] + likeliest[-1] >= self._nucleus.top_p:
                return int(tokens[self._index(likeliest * (before < self._nucleus.top_p))])
            probabilities = self._nucleus(held, scores).softmax(-1)[0]
        return self._index(probabilities)

    def _index(self, weights: torch.Tensor) -> int:
        """An index, each as likely as its weight: where a uniform number falls among their running sums."""
        sums = weights.double().cumsum(0)
        drawn = torch.rand(1, generator=self._generator, device=weights.device, dtype=torch.float64) * sums[-1]
        return min(int(torch.searchsorted(sums, drawn, right=True)), len(weights) - 1)


def _listed(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
