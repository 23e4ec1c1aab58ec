"""One thread for whatever serving computes again and again: turns of generation, passes of classifiers, new versions.

Each thread that has ever computed in parallel keeps a team of OpenMP threads, and where the threads of all teams are
more than the cores, libgomp lets those that wait spin a hundredth as long: waking them takes a third of a step of
generation (docs/experiments.md). So whoever wants something computed hands it over. First come, first served: who has
more to do stands behind the others again, so that several bases take turns.

What takes seconds is computed elsewhere, because everybody else would wait for it: the loading of a base, and
`generate` of encoder-decoder bases. Their threads end with their work, and their teams with them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

Result = TypeVar("Result")

log = logging.getLogger("graft")


def run(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, computed in its turn; at once where the thread itself asks."""
    if threading.current_thread() is _thread:
        return work()
    done = Future[Result]()
    submit(partial(_settle, done, work))
    try:
        return done.result()
    finally:
        del done  # it holds what was raised, which refers to this frame


def submit(work: Callable[[], None]) -> None:
    """Have `work` done in its turn, and do not wait for it."""
    _waiting.put(work)
    with _starting:
        if _thread.ident is None:
            _thread.start()


def stop(wait_s: float) -> None:
    """Compute nothing more, at the end of the process; waits so long for what is being computed."""
    _waiting.put(None)
    if _thread.is_alive():
        _thread.join(wait_s)


def _settle(done: Future[Result], work: Callable[[], Result]) -> None:
    try:
        result = work()
    except BaseException as error:  # its caller's, whatever it is
        done.set_exception(error)
        del done  # as above
    else:
        done.set_result(result)


def _compute() -> None:
    while (work := _waiting.get()) is not None:
        try:
            work()
        except BaseException:  # nobody waits for it, and the others must be served
            log.exception("while computing")
        del work  # an idle base is held by nobody


_waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
_starting = threading.Lock()
_thread = threading.Thread(target=_compute, name="graft-compute", daemon=True)
