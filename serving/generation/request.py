"""One generation on its way: what is asked, what has been written, and how it ends."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Generator
from dataclasses import dataclass, field

from serving.base.slots import Slot
from serving.generation.sampling import Sampling

DEADLINE_S = 600.0
"""How long a generation may take; what it has written by then is its answer."""

closing = threading.Event()
"""Set when the process ends: nobody reads any more."""


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
        return self.late or self.stopped.is_set() or closing.is_set()

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
