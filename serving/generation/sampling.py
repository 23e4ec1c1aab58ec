"""Sampling: the options of a generation, and how its next token is chosen from logits.

Tokens are chosen by transformers' own logits processors and a random generator of each request. Two things differ from
`generate`, with the same distribution: top-p looks among the likeliest tokens first, and a token is drawn by one random
number. Sorting and drawing from a vocabulary of 49,152 takes 10 ms on a CPU for each row and step, where a step of
SmolLM2 takes 90; this takes less than one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TopPLogitsWarper

from errors import InputError, Text
from models.transformers_private import generation_setup

LIKELIEST = 512
"""Number of tokens that top-p sorts first; all are sorted only if these have too little probability."""


@dataclass(frozen=True)
class SamplingParams:
    """Options of one generation; temperature 0 takes the likeliest token. Raises `InputError` for values out of range.

    A `seed` gives the same answer whatever else is in the batch; None gives another one each time.
    """

    max_new_tokens: int = 160
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        numbers = (self.max_new_tokens, self.temperature, self.top_p)
        if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) or not (
            1 <= self.max_new_tokens < math.inf and 0 <= self.temperature <= 10 and 0 < self.top_p <= 1
        ):
            template = "Length {length}, temperature {temperature}, top-p {top_p}."
            why = Text(template, length=self.max_new_tokens, temperature=self.temperature, top_p=self.top_p)
            then = "Length is 1 or more, temperature 0 to 10, top-p above 0 and at most 1."
            raise InputError("These options cannot be used.", why, then)
        if self.seed is not None and not (type(self.seed) is int and 0 <= self.seed < 2**63):
            why = Text("It is {seed}.", seed=repr(self.seed))
            raise InputError("This seed cannot be used.", why, "Give a whole number from 0 on.")

    def arguments(self) -> dict[str, Any]:
        """Return keyword arguments of transformers' `generate`."""
        # A base may bring beam search as its own default, and beams cannot be streamed.
        common = {"max_new_tokens": int(self.max_new_tokens), "num_beams": 1}
        if self.temperature == 0:
            return {**common, "do_sample": False, "temperature": None, "top_p": None}
        return {**common, "do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}


class TokenSampler:
    """Chooses the next tokens of one generation."""

    def __init__(self, net: Any, params: SamplingParams, prompt_tokens: int) -> None:  # noqa: ANN401 - transformers'
        config, self._processors = generation_setup(net, prompt_tokens, params.arguments())
        self._nucleus: TopPLogitsWarper | None = None
        if self._processors and type(self._processors[-1]) is TopPLogitsWarper:
            self._nucleus = self._processors.pop()
        self.samples = bool(config.do_sample)
        ends = config.eos_token_id
        self.ends = frozenset([] if ends is None else [ends] if isinstance(ends, int) else ends)
        """Token ids that end the answer."""
        self._generator = torch.Generator(net.device)
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    @property
    def is_greedy(self) -> bool:
        """True if it takes the token with the largest logit, unprocessed."""
        return not self.samples and not self._processors

    def __call__(self, ids: Sequence[int], logits: torch.Tensor, warp_only: bool = False) -> int:
        """Return the token that follows `ids`, from logits of shape (1, vocabulary).

        `warp_only` applies the processors of sampling (temperature, top-p) and leaves out all others.
        """
        context = torch.tensor([ids], device=logits.device)
        scores = logits.float()
        for processor in self._processors:
            if not warp_only or type(processor).__name__.endswith("Warper"):
                scores = processor(context, scores)
        return self._draw(context, scores) if self.samples else int(scores.argmax(-1))

    def _draw(self, context: torch.Tensor, scores: torch.Tensor) -> int:
        probabilities = scores.softmax(-1)[0]
        if self._nucleus is not None:
            likeliest, tokens = probabilities.topk(min(LIKELIEST, len(probabilities)))
            before = likeliest.cumsum(0) - likeliest
            if before[-1] + likeliest[-1] >= self._nucleus.top_p:
                return int(tokens[self._draw_index(likeliest * (before < self._nucleus.top_p))])
            probabilities = self._nucleus(context, scores).softmax(-1)[0]
        return self._draw_index(probabilities)

    def _draw_index(self, weights: torch.Tensor) -> int:
        """Return an index with probability proportional to its weight, by inverse transform sampling."""
        sums = weights.double().cumsum(0)
        drawn = torch.rand(1, generator=self._generator, device=weights.device, dtype=torch.float64) * sums[-1]
        return min(int(torch.searchsorted(sums, drawn, right=True)), len(weights) - 1)
