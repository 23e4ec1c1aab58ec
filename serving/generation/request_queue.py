"""Generation requests, the queue in which they wait, and the thread that serves the queue while it is not empty."""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from queue import SimpleQueue

import torch

from errors import BusyError, GraftError, Text
from serving import compute_thread
from serving.base.slots import Slot
from serving.generation.sampling import SamplingParams

log = logging.getLogger("graft")

DEADLINE_S = 600.0
"""Longest time from a request to the end of its answer, which is cut there."""
WAITING = 64
"""Longest queue; further requests are refused."""
CLOSE_S = 10.0
"""Longest wait for a running step when the process ends."""

_closing = threading.Event()
_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


@dataclass(eq=False)
class Request:
    """A prompt, its options and its answer, which one thread writes and another reads."""

    ids: list[int]
    """Token ids of the prompt."""
    params: SamplingParams
    slot: Slot | None
    notes: list[str] = field(default_factory=list)
    """Notes for the reader of the answer."""
    written: list[int] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set when the reader goes away."""
    finished: threading.Event = field(default_factory=threading.Event)
    """Set when nothing is computed for the request any more."""
    late: bool = False
    """True if it has reached its deadline."""
    begun: float = field(default_factory=time.monotonic)
    _news: SimpleQueue[int | BaseException | None] = field(default_factory=SimpleQueue)

    def write(self, token: int) -> None:
        """Append a token to the answer."""
        self.written.append(token)
        self._news.put(token)

    def end(self, error: BaseException | None = None) -> None:
        """End the answer, with an error or without; further calls do nothing."""
        if not self.finished.is_set():
            self.finished.set()
            self._news.put(_for_reader(error))

    @property
    def is_over(self) -> bool:
        """True if nothing more is to be computed: the reader has gone, the deadline is reached, or the process ends."""
        self.late = self.late or time.monotonic() - self.begun > DEADLINE_S
        return self.late or self.cancelled.is_set() or _closing.is_set()

    def tokens(self) -> Generator[list[int], None, None]:
        """Yield the new tokens each time there are some; closing the generator cancels the request.

        Raises the error that ended the answer.
        """
        try:
            news: int | BaseException | None = 0
            while isinstance(news, int):
                found = list[int]()
                while isinstance(news := self._news.get(), int):
                    found.append(news)
                    if self._news.empty():
                        break
                if found:
                    yield found
            if news is not None:
                raise news
        finally:
            self.cancelled.set()
            self.finished.wait()


class RequestQueue:
    """A first-in, first-out queue with a thread that serves it. Thread-safe."""

    def __init__(self, serve: Callable[[], None]) -> None:
        """`serve` runs in a thread of its own while requests wait; it must return once `take` returns None."""
        self._serve = serve
        self._waiting: list[Request] = []
        self._lock = threading.Lock()
        self._served = False

    def put(self, request: Request) -> None:
        """Append a request; raises `BusyError` for a full queue."""
        with self._lock:
            if len(self._waiting) >= WAITING:
                why = Text("{n} requests wait.", n=WAITING)
                raise BusyError("Too many are waiting for an answer.", why, "Try again in a moment.")
            self._waiting.append(request)
            if not self._served:
                self._served = True
                thread = threading.Thread(target=self._run, name="graft-generate", daemon=True)
                _threads.add(thread)
                thread.start()

    def ahead(self, request: Request) -> int:
        """Return the number of requests ahead of one; 0 once it has been taken."""
        with self._lock:
            return self._waiting.index(request) if request in self._waiting else 0

    def take(self, busy: bool, fits: Callable[[list[Request], Request], bool]) -> list[Request] | None:
        """Remove and return requests from the front while `fits(taken so far, next)`; ends those that are over.

        Returns None if none wait and the thread is not `busy` with earlier ones: the thread must end.
        """
        taken: list[Request] = []
        with self._lock:
            over = [request for request in self._waiting if request.is_over]
            self._waiting = [request for request in self._waiting if request not in over]
            while self._waiting and fits(taken, self._waiting[0]):
                taken.append(self._waiting.pop(0))
            self._served = bool(busy or taken or self._waiting)
            served = self._served
        for request in over:
            request.end(_too_late() if request.late else None)
        return taken if served else None

    def _run(self) -> None:
        again = True
        while again:
            again = False
            try:
                self._serve()
            except BaseException:  # its requests have ended with the error; the others are served anew
                log.exception("while generating")
                with self._lock:
                    again = self._served = bool(self._waiting)


@atexit.register
def _close() -> None:
    """End all answers: a computation during the shutdown of the interpreter would abort the process."""
    _closing.set()
    for thread in [*_threads]:
        thread.join(CLOSE_S)
    compute_thread.stop(CLOSE_S)


def _for_reader(error: BaseException | None) -> BaseException | None:
    """Return the error to raise in the reader's thread."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return GraftError("There was not enough memory for this answer.", "", "Ask for a shorter one, or try later.")
    return error


def _too_late() -> BusyError:
    why = Text("Its turn did not come within {n} seconds.", n=f"{DEADLINE_S:.0f}")
    return BusyError("The answer was not begun.", why, "Try again when fewer people ask.")
