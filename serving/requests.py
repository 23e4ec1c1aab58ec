"""One generation on its way: what is asked, what has been written, and how it ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import torch

from serving.sampling import Sampling
from serving.slot import Slot

DEADLINE_S = 600.0
"""How long a generation may take; what it has written by then is its answer."""


@dataclass(eq=False)
class Request:
    """A prompt that a version continues. One thread reads it, the thread that generates writes it."""

    ids: list[int]
    sampling: Sampling
    slot: Slot | None
    written: list[int] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    """Set by the reader who goes away."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set when nothing computes for it any more."""
    late: bool = False
    """Whether it was ended by its deadline."""
    begun: float = field(default_factory=time.monotonic)
    _news: queue.SimpleQueue[int | BaseException | None] = field(default_factory=queue.SimpleQueue)

    def write(self, token: int) -> None:
        """One token more."""
        self.written.append(token)
        self._news.put(token)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; only the first time counts."""
        if not self.left.is_set():
            self.left.set()
            self._news.put(error)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for it: its reader has gone, or its time is up."""
        self.late = self.late or time.monotonic() - self.begun > DEADLINE_S
        return self.late or self.stopped.is_set()

    def tokens(self) -> Generator[list[int], None, None]:
        """Tokens as they come, those that have come meanwhile together. Raises what ended it. Stops it when closed."""
        try:
            while True:
                found, news = list[int](), self._news.get()
                while isinstance(news, int):
                    found.append(news)
                    if self._news.empty():
                        break
                    news = self._news.get()
                if found:
                    yield found
                if isinstance(news, int):
                    continue
                if news is not None:
                    raise news
                return
        finally:
            self.stopped.set()
            self.left.wait()


class Choice:
    """How one request's next token is chosen, by transformers' own logits processors and a generator of its own."""

    def __init__(self, net: Any, request: Request) -> None:  # noqa: ANN401 - a transformers model
        config, _ = net._prepare_generation_config(None, **request.sampling.arguments())
        net._prepare_special_tokens(config, True, device=net.device)
        self.processors = net._get_logits_processor(
            config, input_ids_seq_length=len(request.ids), device=net.device, model_kwargs={}
        )
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
        return not self.samples and not self.processors

    def __call__(self, request: Request, logits: torch.Tensor, warp_only: bool = False) -> int:
        """The next token, from logits (1, vocabulary); `warp_only`: all but sampling's own is done to them."""
        held = torch.tensor([request.ids + request.written], device=logits.device)
        scores = logits.float()
        for processor in self.processors:
            if not warp_only or type(processor).__name__.endswith("Warper"):
                scores = processor(held, scores)
        if not self.samples:
            return int(scores.argmax(-1))
        return int(torch.multinomial(scores.softmax(-1), 1, generator=self._generator))


def _listed(ids: int | list[int] | None) -> list[int]:
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)
