"""One thread for all repeated computation, and batches of calls that wait for it.

Decoding steps, classifier passes and the loading of versions are jobs of this thread, first come, first served; a job
with more to do queues again, so that several bases take turns. Work of seconds runs in threads of its own, since every
other job would wait for it: loading a base, and `generate` of encoder-decoder bases.

Reason: each thread that has computed in parallel keeps a team of OpenMP threads. If all teams have more threads than
there are cores, libgomp lets idle ones spin a hundredth as long, and waking them takes a third of a decoding step
(docs/experiments.md).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger("graft")

MOST_TOKENS = 4096
"""Longest batch in tokens, padding counted: other jobs wait for it."""
OVERHEAD = {"cpu": 64, "cuda": 512}
"""Fixed cost of a pass in tokens: padding below it costs less than another pass."""
AHEAD = 128
"""Number of waiting calls among which a batch is chosen, so that choosing takes less time than it saves."""


def run(work: Callable[[], Result]) -> Result:
    """Run `work` in the compute thread, in its turn, and return its result; a job may call this too."""
    if threading.current_thread() is _thread:
        return work()
    done = Future[Result]()
    submit(partial(_settle, done, work))
    try:
        return done.result()
    finally:
        del done  # it holds the exception, which refers to this frame


def submit(work: Callable[[], None]) -> None:
    """Queue `work` without waiting for it."""
    _waiting.put(work)
    with _starting:
        if _thread.ident is None:
            _thread.start()


def stop(wait_s: float) -> None:
    """Stop the thread at the end of the process; waits at most `wait_s` seconds for the running job."""
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
        del work  # or an idle base would stay referenced


_waiting: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
_starting = threading.Lock()
_thread = threading.Thread(target=_compute, name="graft-compute", daemon=True)


class _Call(Generic[Item]):
    """One waiting item, and the future of its result."""

    def __init__(self, key: Hashable, item: Item, tokens: int) -> None:
        self.key, self.item, self.tokens = key, item, tokens
        self.done = Future[Any]()


class Batcher(Generic[Item, Result]):
    """Turns concurrent calls with equal keys into batches, without delaying calls to an idle model. Thread-safe.

    The first call submits a pass, whose batch is chosen when its turn has come; calls that still wait then are the next
    pass. Not to be called from a job.
    """

    def __init__(
        self, run: Callable[[Sequence[Item]], Sequence[Result]], largest: int = 32, device: str = "cpu"
    ) -> None:
        """`run` answers 1 to `largest` items of one key, in order, on a `device` of that type."""
        self._run, self._largest = run, largest
        self._overhead = OVERHEAD.get(device, OVERHEAD["cpu"])
        self._waiting: list[_Call[Item]] = []
        self._lock = threading.Lock()
        self._submitted = False
        """True while a pass runs or waits for its turn."""

    def __call__(self, key: Hashable, item: Item, tokens: int = 0) -> Result:
        """Return the result for one item of `tokens` tokens. Re-raises what `run` raised."""
        return self.map(key, [(item, tokens)])[0]

    def map(self, key: Hashable, items: Sequence[tuple[Item, int]]) -> list[Result]:
        """Return the results for several (item, tokens), in order."""
        calls = [_Call(key, item, tokens) for item, tokens in items]
        with self._lock:
            self._waiting += calls
            first, self._submitted = bool(calls) and not self._submitted, self._submitted or bool(calls)
        if first:
            submit(self._pass)
        errors = [call.done.exception() for call in calls]  # waits for all of them
        if failed := next((error for error in errors if error), None):
            raise failed
        return [call.done.result() for call in calls]

    def _pass(self) -> None:
        """Compute the longest waiting call and those that fit beside it."""
        with self._lock:
            batch = _choose(self._waiting[:AHEAD], self._largest, self._overhead)
            taken = set(map(id, batch))
            self._waiting = [call for call in self._waiting if id(call) not in taken]
        try:
            results = list(zip(batch, self._run([call.item for call in batch]), strict=True))
        except BaseException as error:  # every waiting caller must hear of it
            for call in batch:
                call.done.set_exception(error)
        else:
            for call, result in results:
                call.done.set_result(result)
        with self._lock:
            self._submitted = again = bool(self._waiting)
        if again:
            submit(self._pass)


def _choose(waiting: Sequence[_Call[Item]], largest: int, overhead: int) -> list[_Call[Item]]:
    """Split the calls with the key of the longest waiting one into batches of least total cost; returns its batch.

    A batch costs its tokens, padding counted, plus the overhead. Calls are sorted by length, and the first call of each
    batch is found by dynamic programming over the cost of the first `end` calls.
    """
    calls = sorted((call for call in waiting if call.key == waiting[0].key), key=lambda call: call.tokens)
    costs, begins = [0], [0]
    for end, call in enumerate(calls, 1):
        most = max(1, min(end, largest, MOST_TOKENS // max(1, call.tokens)))
        cost, begin = min((costs[begin] + (end - begin) * call.tokens, -begin) for begin in range(end - most, end))
        costs.append(cost + overhead)
        begins.append(-begin)
    end, place = len(calls), calls.index(waiting[0])
    while begins[end] > place:
        end = begins[end]
    return calls[begins[end] : end]
