"""How the next token is chosen: the options of one generation, checked before it starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen; temperature 0 takes the likeliest."""

    max_new_tokens: int = 160
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    """The same seed gives the same answer, whoever else is answered at the time; None: another one each time."""

    def __post_init__(self) -> None:
        numbers = (self.max_new_tokens, self.temperature, self.top_p)
        if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers) or not (
            1 <= self.max_new_tokens < math.inf and 0 <= self.temperature <= 10 and 0 < self.top_p <= 1
        ):
            raise InputError(
                "These options cannot be used.",
                f"Length {self.max_new_tokens}, temperature {self.temperature}, top-p {self.top_p}.",
                "Length is 1 or more, temperature 0 to 10, top-p above 0 and at most 1.",
            )
        if self.seed is not None and not (type(self.seed) is int and 0 <= self.seed < 2**63):
            raise InputError("This seed cannot be used.", f"It is {self.seed!r}.", "Give a whole number from 0 on.")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of transformers' `generate`."""
        # A base may bring beam search as its own default, and beams cannot be streamed.
        common = {"max_new_tokens": int(self.max_new_tokens), "num_beams": 1}
        if self.temperature == 0:
            return {**common, "do_sample": False, "temperature": None, "top_p": None}
        return {**common, "do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}


@dataclass
class Place:
    """Filled in when a request has joined a line."""

    ask: Callable[[], int] = lambda: 0
    """How many are before it."""
