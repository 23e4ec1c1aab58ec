"""Requests that wait for their turn on one base, and the thread that is there as long as there are any."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections.abc import Callable

import torch

from errors import BusyError, GraftError, Text
from serving import compute_thread
from serving.generation.request import DEADLINE_S, Request, closing

log = logging.getLogger("graft")

WAITING = 64
"""Requests that wait; whoever comes then is told to come again."""
CLOSE_S = 10.0
"""How long the end of the process waits for a step that is under way."""

_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Line:
    """First come, first served. Thread-safe."""

    def __init__(self, serve: Callable[[], None]) -> None:
        """`serve` runs in a thread of its own when a request finds none; it returns when `take` said that it may."""
        self._serve = serve
        self._waiting: list[Request] = []
        self._lock = threading.Lock()
        self._served = False

    def join(self, request: Request) -> None:
        """Wait behind the others. Raises `BusyError` where they are too many."""
        with self._lock:
            if len(self._waiting) >= WAITING:
                raise BusyError(
                    "Too many are waiting for an answer.",
                    Text("{n} requests wait.", n=WAITING),
                    "Try again in a moment.",
                )
            self._waiting.append(request)
            if not self._served:
                self._served = True
                thread = threading.Thread(target=self._run, name="graft-generate", daemon=True)
                _threads.add(thread)
                thread.start()

    def before(self, request: Request) -> int:
        """How many wait before a request; 0 for one whose turn has come."""
        with self._lock:
            return self._waiting.index(request) if request in self._waiting else 0

    def take(self, busy: bool, fits: Callable[[list[Request], Request], bool]) -> list[Request] | None:
        """Whose turn it is: as many as `fits`, given those taken before. Those that are over leave the line.

        None where there is nothing to do, unless the thread is `busy`; it then has to end.
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
        while True:
            try:
                self._serve()
            except BaseException:  # those whom it concerned have been told; the others are served anew
                log.exception("while generating")
                with self._lock:
                    self._served = bool(self._waiting)
                if self._served:
                    continue
            return


@atexit.register
def _close() -> None:
    """End what is being written: a thread that computes when the interpreter goes would abort the process."""
    closing.set()
    for thread in [*_threads]:
        thread.join(CLOSE_S)
    compute_thread.stop(CLOSE_S)


def failure(error: BaseException) -> BaseException:
    """What a reader is told of an error."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return GraftError("There was not enough memory for this answer.", "", "Ask for a shorter one, or try later.")
    return error


def _too_late() -> BusyError:
    why = f"Its turn did not come within {DEADLINE_S:.0f} seconds."
    return BusyError("The answer was not begun.", why, "Try again when fewer people ask.")
