"""Calls that arrive while a pass runs are answered together in the next one; an idle model makes nobody wait.

Leader and followers: the caller that finds the model idle runs the pass for everybody who is waiting. There is no
thread and no timer of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Call = tuple[Hashable, Item, "Future[Result]"]


class Batcher(Generic[Item, Result]):
    """Turns concurrent calls of one item each into passes over several items that share a key."""

    def __init__(self, run: Callable[[Sequence[Item]], Sequence[Result]], largest: int = 32) -> None:
        """`run` answers 1 to `largest` items of one key at once, in order."""
        self._run, self._largest = run, largest
        self._waiting: list[Call[Item, Result]] = []
        self._lock = threading.Lock()
        self._pass = threading.Lock()

    def __call__(self, key: Hashable, item: Item) -> Result:
        """Answer one item; items with equal keys may share a pass. Re-raises what `run` raised."""
        future: Future[Result] = Future()
        with self._lock:
            self._waiting.append((key, item, future))
        while not future.done():
            with self._pass:
                if not future.done():
                    self._lead()
        return future.result()

    def _lead(self) -> None:
        """Run one pass for those who have waited longest, and whoever waits with the same key."""
        with self._lock:
            first = self._waiting[0][0]
            batch = [call for call in self._waiting if call[0] == first][: self._largest]
            taken = {id(future) for _, _, future in batch}
            self._waiting = [call for call in self._waiting if id(call[2]) not in taken]
        try:
            answered = list(zip(batch, self._run([item for _, item, _ in batch]), strict=True))
        except BaseException as error:  # every waiting caller must hear of it
            for _, _, future in batch:
                future.set_exception(error)
        else:
            for (_, _, future), result in answered:
                future.set_result(result)
