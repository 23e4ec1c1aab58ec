"""compute_thread.py, Batcher: calls that come while a pass runs share the next; keys, order and errors stay apart."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from serving import compute_thread
from serving.compute_thread import AHEAD, MOST_TOKENS, OVERHEAD, Batcher
from tests.helpers.answers import together
from tests.helpers.waiting import PATIENCE_S, until

LONG = MOST_TOKENS // 4


class Passes:
    """A batcher that records its passes, and callers of it; a pass over "first" is held until `go`."""

    def __init__(self, largest: int = 32) -> None:
        self.seen: list[list[Any]] = []
        self.entered, self.go = threading.Event(), threading.Event()
        self.batcher: Batcher[Any, Any] = Batcher(self.run, largest)
        self.callers = ThreadPoolExecutor(20)

    def run(self, items: Sequence[Any]) -> list[Any]:
        self.seen.append(list(items))
        if items[0] == "first":
            self.entered.set()
            assert self.go.wait(PATIENCE_S)
        if isinstance(items[0], BaseException):
            raise items[0]
        return [f"answer to {item}" for item in items]

    def begin(self) -> Passes:
        """Begin a pass, and hold it."""
        self.callers.submit(self.batcher, "k", "first")
        assert self.entered.wait(PATIENCE_S)
        return self

    def call(self, key: str, *items: Any) -> Future[list[Any]]:
        """Call from a thread of its own; returns when the call waits."""
        before = len(self.batcher._waiting)
        future = self.callers.submit(self.batcher.map, key, [(item, 0) for item in items])
        until(lambda: len(self.batcher._waiting) == before + len(items))
        return future


@pytest.fixture
def held() -> Iterator[Passes]:
    passes = Passes().begin()
    yield passes
    passes.go.set()
    passes.callers.shutdown()


@pytest.mark.parametrize(("largest", "sizes"), [(32, [1, 12]), (5, [1, 5, 5, 2])])
def test_calls_that_come_during_a_pass_share_the_next_up_to_the_largest_number(largest: int, sizes: list[int]) -> None:
    passes = Passes(largest)
    assert passes.batcher("k", "a") == "answer to a" and passes.seen.pop() == ["a"], "an idle model answers at once"
    passes.begin()
    calls = [passes.call("k", i) for i in range(12)]
    passes.go.set()
    assert [call.result(PATIENCE_S) for call in calls] == [[f"answer to {i}"] for i in range(12)]
    assert [len(items) for items in passes.seen] == sizes


def test_a_pass_that_waits_for_its_turn_takes_the_calls_that_come_meanwhile() -> None:
    passes, entered = Passes(), threading.Event()
    compute_thread.submit(lambda: (entered.set(), passes.go.wait(PATIENCE_S)))
    assert entered.wait(PATIENCE_S)
    calls = [passes.call("k", i) for i in range(5)]
    passes.go.set()
    assert all(call.result(PATIENCE_S) for call in calls)
    assert [sorted(items) for items in passes.seen] == [list(range(5))]


def test_the_longest_waiting_call_is_first_and_different_keys_never_share_a_pass(held: Passes) -> None:
    calls = [held.call("x", "x1"), held.call("y", "y1"), held.call("x", "x2", "x3")]
    held.go.set()
    assert calls[2].result(PATIENCE_S) == ["answer to x2", "answer to x3"]
    assert calls[1].result(PATIENCE_S) == ["answer to y1"]
    assert held.seen[1:] == [["x1", "x2", "x3"], ["y1"]]


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_reaches_every_caller_of_its_pass_and_no_one_else(held: Passes, kind: type[BaseException]) -> None:
    bad, good, beside = held.call("x", kind("bad")), held.call("y", "good"), held.call("x", "beside it")
    held.go.set()
    assert isinstance(bad.exception(PATIENCE_S), kind) and isinstance(beside.exception(PATIENCE_S), kind)
    assert good.result(PATIENCE_S) == ["answer to good"]
    assert held.batcher("x", "later") == "answer to later"


@pytest.mark.parametrize("answers", [[], ["one too many"] * 9, None])
def test_a_pass_of_the_wrong_length_fails_its_callers_and_nobody_waits(answers: Any) -> None:
    batcher: Batcher[int, str] = Batcher(lambda items: answers)
    for _ in range(2):
        with pytest.raises((ValueError, TypeError)):
            batcher("k", 1)
    assert batcher._waiting == []


def test_many_callers_each_get_their_own_answer() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [item * 7 for item in items], largest=4)

    def work(seed: int) -> None:
        for item in range(seed * 1000, seed * 1000 + 200):
            assert batcher(item % 3, item) == item * 7

    together(work, [(n,) for n in range(8)])
    assert batcher._waiting == []


def in_one_pass(tokens: Sequence[int], device: str = "cpu", largest: int = 32) -> list[list[int]]:
    """Return the passes that items of these tokens go through when all wait at the same time."""
    seen: list[list[int]] = []
    batcher: Batcher[int, int] = Batcher(lambda items: (seen.append(list(items)), list(items))[1], largest, device)
    assert batcher.map("k", [(count, count) for count in tokens]) == list(tokens)
    return seen


@pytest.mark.parametrize(
    ("tokens", "device", "passes"),
    [
        ([], "cpu", []),
        ([10] * 20 + [500] + [10] * 5, "cpu", [[10] * 25, [500]]),  # a long text makes short ones no longer
        ([500, *[10] * 30], "cpu", [[500], [10] * 30]),
        ([20, 30, 10, 25], "cpu", [[10, 20, 25, 30]]),  # a little padding costs less than another pass
        ([60, 60, *[10] * 8], "cpu", [[60, 60], [10] * 8]),
        ([60, 60, *[10] * 8], "mps", [[60, 60], [10] * 8]),  # an unknown device is like a CPU
        ([60, 60, *[10] * 8], "cuda", [[*[10] * 8, 60, 60]]),  # where more padding costs less than another pass
        ([LONG] * 6, "cpu", [[LONG] * 4, [LONG] * 2]),
        ([MOST_TOKENS * 2, 5], "cpu", [[MOST_TOKENS * 2], [5]]),  # the first call is always taken
    ],
)
def test_items_of_similar_length_share_a_pass(tokens: list[int], device: str, passes: list[list[int]]) -> None:
    assert in_one_pass(tokens, device) == passes


def test_calls_beyond_those_looked_at_wait() -> None:
    passes = in_one_pass([10, *[90] * (AHEAD - 1), 10, 10])
    assert passes[0] == [10] and sum(map(len, passes)) == AHEAD + 2


def cost(passes: Sequence[Sequence[int]]) -> int:
    return sum(len(one) * max(one) + OVERHEAD["cpu"] for one in passes)


def least_cost(tokens: Sequence[int], largest: int) -> int:
    """Return the cost of the best way to cut the sorted lengths into passes, all ways tried."""
    sizes = range(1, min(largest, len(tokens)) + 1)
    return min((cost([tokens[:n]]) + least_cost(tokens[n:], largest) for n in sizes), default=0)


def test_waiting_calls_are_answered_at_the_least_cost() -> None:
    dice = random.Random(0)
    several = 0
    for _ in range(60):
        tokens = [dice.randint(1, 90) for _ in range(dice.randint(1, 9))]
        passes = in_one_pass(tokens, largest=4)
        assert sorted(n for one in passes for n in one) == sorted(tokens)
        assert cost(passes) == least_cost(sorted(tokens), 4), (tokens, passes)
        assert tokens[0] in passes[0], "the call that waited longest is in the first"
        several += len(passes) > 2
    assert several > 10
