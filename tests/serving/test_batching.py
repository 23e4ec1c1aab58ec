"""compute_thread.py, Batcher: calls that come while a pass runs share the next; keys, order and errors stay apart."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from serving import compute_thread
from serving.compute_thread import AHEAD, MOST_TOKENS, OVERHEAD, Batcher
from tests.helpers.answers import together
from tests.helpers.waiting import PATIENCE_S, until


class Passes:
    """A `run` that can be held inside a pass, and remembers what each pass was given."""

    def __init__(self, largest: int = 32) -> None:
        self.seen: list[list[Any]] = []
        self.entered, self.go = threading.Event(), threading.Event()
        self.batcher: Batcher[Any, Any] = Batcher(self.run, largest)
        self.threads: list[threading.Thread] = []
        self.answers: dict[Any, Any] = {}

    def run(self, items: Sequence[Any]) -> list[Any]:
        self.seen.append(list(items))
        if items[0] == "first":
            self.entered.set()
            assert self.go.wait(PATIENCE_S)
        if any(str(item).startswith("bad") for item in items):
            raise {"bad exit": SystemExit, "bad key": KeyboardInterrupt}.get(items[0], ValueError)("bad")
        return [f"answer to {item}" for item in items]

    def call(self, key: Any, item: Any) -> None:
        def work() -> None:
            try:
                self.answers[key, item] = self.batcher(key, item)
            except BaseException as error:
                self.answers[key, item] = error

        self.threads.append(threading.Thread(target=work, daemon=True))
        self.threads[-1].start()

    def wait_for(self, count: int) -> None:
        """Return when `count` calls wait."""
        until(lambda: len(self.batcher._waiting) >= count)

    def release(self) -> None:
        self.go.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a caller was left waiting"


def held(largest: int = 32) -> Passes:
    """One pass under way, held."""
    passes = Passes(largest)
    passes.call("k", "first")
    assert passes.entered.wait(PATIENCE_S)
    return passes


def test_an_idle_model_answers_at_once_and_alone() -> None:
    passes = Passes()
    assert passes.batcher("k", "a") == "answer to a"
    assert passes.seen == [["a"]]


@pytest.mark.parametrize(("largest", "sizes"), [(32, [1, 12]), (5, [1, 5, 5, 2])])
def test_calls_that_come_during_a_pass_share_the_next_up_to_the_largest_number(largest: int, sizes: list[int]) -> None:
    passes = held(largest)
    for i in range(12):
        passes.call("k", i)
    passes.wait_for(12)
    passes.release()
    assert [len(items) for items in passes.seen] == sizes
    assert passes.answers == {("k", i): f"answer to {i}" for i in ["first", *range(12)]}


def test_a_pass_that_waits_for_its_turn_takes_those_who_come_meanwhile() -> None:
    passes, entered = Passes(), threading.Event()

    def other() -> None:
        entered.set()
        passes.go.wait(PATIENCE_S)

    compute_thread.submit(other)
    assert entered.wait(PATIENCE_S)
    for i in range(5):
        passes.call("k", i)
    passes.wait_for(5)
    passes.release()
    assert [sorted(items) for items in passes.seen] == [list(range(5))]


def test_the_longest_waiting_call_is_first_and_different_keys_never_share_a_pass() -> None:
    passes = held()
    for waiting, (key, item) in enumerate([("x", "x1"), ("y", "y1"), ("x", "x2")], 1):
        passes.call(key, item)
        passes.wait_for(waiting)
    passes.release()
    assert passes.seen[1:] == [["x1", "x2"], ["y1"]]


@pytest.mark.parametrize(
    ("item", "kind"), [("bad", ValueError), ("bad exit", SystemExit), ("bad key", KeyboardInterrupt)]
)
def test_an_error_reaches_every_caller_of_its_pass_and_no_one_else(item: str, kind: type[BaseException]) -> None:
    passes = held()
    for waiting, (key, text) in enumerate([("x", item), ("y", "good"), ("x", "with it")], 1):
        passes.call(key, text)
        passes.wait_for(waiting)
    passes.release()
    assert isinstance(passes.answers["x", item], kind)
    assert isinstance(passes.answers["x", "with it"], kind)
    assert passes.answers["y", "good"] == "answer to good"
    assert passes.answers["k", "first"] == "answer to first"
    assert passes.batcher("x", "later") == "answer to later"


@pytest.mark.parametrize("answers", [[], ["one too many"] * 9, None])
def test_a_pass_of_the_wrong_length_fails_its_callers_and_nobody_waits(answers: Any) -> None:
    batcher: Batcher[int, str] = Batcher(lambda items: answers)
    for _ in range(2):
        with pytest.raises((ValueError, TypeError)):
            batcher("k", 1)
    assert batcher._waiting == []


def test_items_need_not_be_comparable() -> None:
    class Odd:
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

    batcher: Batcher[Odd, int] = Batcher(lambda items: [1] * len(items))
    assert batcher.map("k", [(Odd(), 1) for _ in range(4)]) == [1] * 4


def test_many_callers_each_get_their_own_answer() -> None:
    batcher: Batcher[int, int] = Batcher(lambda items: [item * 7 for item in items], largest=4)
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(200):
            item = seed * 1000 + i
            if batcher(item % 3, item) != item * 7:
                wrong.append(item)

    together(work, [(n,) for n in range(8)])
    assert wrong == [] and batcher._waiting == []


def in_one_pass(tokens: Sequence[int], largest: int = 32, device: str = "cpu") -> list[list[int]]:
    """The passes that items of so many tokens go through when all wait at the same time."""
    seen: list[list[int]] = []
    batcher: Batcher[int, int] = Batcher(lambda items: (seen.append(list(items)), list(items))[1], largest, device)
    assert batcher.map("k", [(count, count) for count in tokens]) == list(tokens)
    return seen


def test_a_long_text_does_not_make_short_ones_as_long_as_itself() -> None:
    assert in_one_pass([10] * 20 + [500] + [10] * 5) == [[10] * 25, [500]]
    assert in_one_pass([500, *[10] * 30]) == [[500], [10] * 30]
    assert in_one_pass([20, 30, 10, 25]) == [[10, 20, 25, 30]], "a little padding costs less than another pass"
    assert in_one_pass([]) == []


def test_on_a_gpu_more_padding_costs_less_than_another_pass() -> None:
    mixed = [60, 60, *[10] * 8]
    assert in_one_pass(mixed) == [[60, 60], [10] * 8]
    assert in_one_pass(mixed, device="cuda") == [[*[10] * 8, 60, 60]]
    assert in_one_pass(mixed, device="mps") == in_one_pass(mixed), "an unknown device is like a CPU"


def cost(passes: Sequence[Sequence[int]]) -> int:
    return sum(len(one) * max(one) + OVERHEAD["cpu"] for one in passes)


def least_cost(tokens: Sequence[int], largest: int) -> int:
    """That of the best way to cut the sorted lengths into passes, all ways tried."""
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
        assert tokens[0] in passes[0], "whoever waited longest is in the first"
        several += len(passes) > 2
    assert several > 10


def test_calls_beyond_those_looked_at_wait() -> None:
    passes = in_one_pass([10, *[90] * (AHEAD - 1), 10, 10])
    assert passes[0] == [10] and sum(map(len, passes)) == AHEAD + 2


def test_a_pass_has_a_limit_of_tokens_but_the_first_call_is_always_taken() -> None:
    assert in_one_pass([MOST_TOKENS // 4] * 6) == [[MOST_TOKENS // 4] * 4, [MOST_TOKENS // 4] * 2]
    assert in_one_pass([MOST_TOKENS * 2, 5]) == [[MOST_TOKENS * 2], [5]]


def test_items_of_one_caller_are_answered_in_order_beside_those_of_others() -> None:
    passes = held()
    found: dict[str, list[str]] = {}
    thread = threading.Thread(target=lambda: found.update(many=passes.batcher.map("k", [("a", 1), ("b", 1)])))
    thread.start()
    passes.wait_for(2)
    passes.call("k", "c")
    passes.wait_for(3)
    passes.release()
    thread.join(PATIENCE_S)
    assert found["many"] == ["answer to a", "answer to b"]
    assert [sorted(items) for items in passes.seen[1:]] == [["a", "b", "c"]]
