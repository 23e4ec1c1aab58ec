"""Calls that arrive while a pass runs, or waits for its turn, are answered together; an idle model makes nobody wait.

The first call asks for a pass (`compute_thread.py`). Who is in it is chosen when its turn has come, and where others
still wait then, it asks for the next. There is no thread and no timer of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast

from serving import compute_thread

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_TOKENS = 4096
"""Tokens of one pass, padding counted: whoever else wants something computed waits for it."""
OVERHEAD = {"cpu": 64, "cuda": 512}
"""What a pass takes whatever is in it, as so many tokens take: less padding than that costs less than another pass."""
AHEAD = 128
"""Of those who wait, so many are looked at; choosing would otherwise take as long as what it spares."""


class _Call(Generic[Item, Result]):
    """One item that waits. Its caller sleeps until it is answered."""

    def __init__(self, key: Hashable, item: Item, tokens: int) -> None:
        self.key, self.item, self.tokens = key, item, tokens
        self.answered = threading.Event()
        self.result: Result | None = None
        self.error: BaseException | None = None

    def end(self, result: Result | None = None, error: BaseException | None = None) -> None:
        self.result, self.error = result, error
        self.answered.set()


class Batcher(Generic[Item, Result]):
    """Turns concurrent calls into passes over several items that share a key. Thread-safe; not for jobs themselves."""

    def __init__(
        self, run: Callable[[Sequence[Item]], Sequence[Result]], largest: int = 32, device: str = "cpu"
    ) -> None:
        """`run` answers 1 to `largest` items of one key at once, in order, on a `device` of that type."""
        self._run, self._largest = run, largest
        self._overhead = OVERHEAD.get(device, OVERHEAD["cpu"])
        self._waiting: list[_Call[Item, Result]] = []
        self._lock = threading.Lock()
        self._asked = False
        """Whether a pass runs or waits for its turn."""

    def __call__(self, key: Hashable, item: Item, tokens: int = 0) -> Result:
        """Answer one item of so many tokens; items with equal keys may share a pass. Re-raises what `run` raised."""
        return self.every(key, [(item, tokens)])[0]

    def every(self, key: Hashable, items: Sequence[tuple[Item, int]]) -> list[Result]:
        """The answers to several items, each with its tokens, in order."""
        calls = [_Call[Item, Result](key, item, tokens) for item, tokens in items]
        with self._lock:
            self._waiting += calls
            first, self._asked = bool(calls) and not self._asked, self._asked or bool(calls)
        if first:
            compute_thread.submit(self._pass)
        for call in calls:
            call.answered.wait()
        if failed := next((call for call in calls if call.error), None):
            raise cast(BaseException, failed.error)
        return [cast(Result, call.result) for call in calls]

    def _pass(self) -> None:
        """Answer whoever has waited longest and those who fit beside him; the others stand in line again."""
        with self._lock:
            batch = _chosen(self._waiting[:AHEAD], self._largest, self._overhead)
            taken = set(map(id, batch))
            self._waiting = [call for call in self._waiting if id(call) not in taken]
        try:
            answered = list(zip(batch, self._run([call.item for call in batch]), strict=True))
        except BaseException as error:  # every waiting caller must hear of it
            for call in batch:
                call.end(error=error)
        else:
            for call, result in answered:
                call.end(result)
        with self._lock:
            self._asked = again = bool(self._waiting)
        if again:
            compute_thread.submit(self._pass)


def _chosen(waiting: Sequence[_Call[Item, Result]], largest: int, overhead: int) -> list[_Call[Item, Result]]:
    """The pass of whoever has waited longest, where all with his key are answered in passes of the least cost.

    A pass costs its tokens, padding counted, and the overhead. Sorted by length, those of a pass stand side by side;
    where each of the passes begins is found by dynamic programming, the cost of the first `end` calls from that of
    fewer.
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
