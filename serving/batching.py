"""Calls that arrive while a pass runs, or waits for its turn, are answered together; an idle model makes nobody wait.

The first call asks for a pass (`serving/compute.py`). Who is in it is chosen when its turn has come, and where others
still wait then, it asks for the next. There is no thread and no timer of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar, cast

from serving import compute

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_TOKENS = 4096
"""Tokens of one pass, padding counted: whoever else wants something computed waits for it."""
SLACK = 512
"""Tokens of padding that are always allowed: so small a pass takes no longer for them."""


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

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]], largest: int = 32) -> None:
        """`run` answers 1 to `largest` items of one key at once, in order."""
        self._run, self._largest = run, largest
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
            compute.submit(self._pass)
        for call in calls:
            call.answered.wait()
        if failed := next((call for call in calls if call.error), None):
            raise cast(BaseException, failed.error)
        return [cast(Result, call.result) for call in calls]

    def _pass(self) -> None:
        """Answer those who have waited longest and what fits beside them; the others stand in line again."""
        with self._lock:
            batch = _chosen(self._waiting, self._largest)
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
            compute.submit(self._pass)


def _chosen(waiting: Sequence[_Call[Item, Result]], largest: int) -> list[_Call[Item, Result]]:
    """The first of those who wait, and of the others with its key those whose padding costs less than they gain.

    So a long text does not make a hundred short ones as long as itself; and whoever is first is always taken.
    """
    batch = [waiting[0]]
    longest = total = waiting[0].tokens
    for call in waiting[1:]:
        if len(batch) == largest:
            break
        longer, padded = max(longest, call.tokens), max(longest, call.tokens) * (len(batch) + 1)
        fits = padded <= MOST_TOKENS and padded <= 2 * (total + call.tokens) + SLACK
        if call.key == batch[0].key and fits:
            batch.append(call)
            longest, total = longer, total + call.tokens
    return batch
