"""serving/compute_thread.py: jobs of many threads take turns in one; each caller gets what is his own."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from models.resolve import ModelStore
from serving import compute_thread
from serving.generation.sampling import SamplingParams
from serving.loaded import Loaded
from settings import REPOSITORY
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.answers import write, written
from tests.helpers.waiting import PATIENCE_S, until


class Callers:
    """Threads that ask for jobs while another job is held, so that they are known to wait."""

    def __init__(self) -> None:
        self.go, self.entered = threading.Event(), threading.Event()
        self.found: dict[Any, Any] = {}
        self.threads: list[threading.Thread] = []
        compute_thread.submit(self._hold)
        assert self.entered.wait(PATIENCE_S)

    def _hold(self) -> None:
        self.entered.set()
        assert self.go.wait(PATIENCE_S)

    def ask(self, name: Any, work: Callable[[], Any]) -> None:
        """Returns when the job stands in the line."""
        before = compute_thread._waiting.qsize()
        self.threads.append(threading.Thread(target=self._call, args=(name, work), daemon=True))
        self.threads[-1].start()
        until(lambda: compute_thread._waiting.qsize() > before)

    def _call(self, name: Any, work: Callable[[], Any]) -> None:
        try:
            self.found[name] = compute_thread.run(work)
        except BaseException as error:
            self.found[name] = error

    def release(self) -> None:
        self.go.set()
        for thread in self.threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a caller was left waiting"


@pytest.fixture
def callers() -> Iterator[Callers]:
    made = Callers()
    yield made
    made.release()


def test_jobs_run_in_order_and_each_caller_gets_its_own_result(callers: Callers) -> None:
    order: list[int] = []
    for i in range(20):
        callers.ask(i, lambda i=i: (order.append(i), i * 7)[1])
    assert order == [] and callers.found == {}
    callers.release()
    assert order == list(range(20))
    assert callers.found == {i: i * 7 for i in range(20)}


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_reaches_its_caller_alone_and_the_thread_goes_on(callers: Callers, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("bad")

    thread = compute_thread._thread
    callers.ask("before", lambda: 1)
    callers.ask("bad", fail)
    callers.ask("after", lambda: 2)
    compute_thread.submit(fail)  # for which nobody waits
    callers.ask("last", threading.current_thread)
    callers.release()
    assert isinstance(callers.found.pop("bad"), kind)
    assert callers.found == {"before": 1, "after": 2, "last": thread} and thread.is_alive()


def test_a_job_that_asks_for_another_has_it_at_once() -> None:
    assert compute_thread.run(lambda: compute_thread.run(threading.current_thread)) is compute_thread._thread
    with pytest.raises(ValueError, match="bad"):
        compute_thread.run(lambda: compute_thread.run(lambda: int("bad")))


@pytest.mark.parametrize("fails", [False, True])
def test_a_job_is_referenced_by_nothing_when_it_is_done(fails: bool) -> None:
    class Net:
        def work(self) -> int:
            return int("bad" if fails else "3")

    net = Net()
    held = weakref.ref(net)
    with suppress(ValueError):
        compute_thread.run(net.work)
    del net
    compute_thread.run(int)  # by now the thread is done with the job before
    assert held() is None


ENDS_MEANWHILE = """
import threading, time
from serving import compute_thread
from serving.generation import request_queue
begun = threading.Event()
def work():
    begun.set()
    time.sleep(0.5)
    print("done", flush=True)
compute_thread.submit(work)
begun.wait()
"""


def test_the_end_of_the_process_waits_for_what_is_being_computed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS_MEANWHILE], cwd=REPOSITORY, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def noted(loaded: Loaded, seen: list[Any], what: Callable[[], Any]) -> None:
    """Let each pass of a base put down what `what` gives then."""
    loaded.base.body.register_forward_hook(lambda *_: seen.append(what()))


def test_passes_of_all_bases_are_computed_in_one_thread(bert: Trained, llama: Trained) -> None:
    seen: list[threading.Thread] = []
    labels, text = bert.load(), llama.load()
    for loaded in (labels, text):
        noted(loaded, seen, threading.current_thread)
    passes: list[int] = []

    def classify() -> None:
        with labels.base.slots.pin(bert.first) as slot:
            passes.append(len(seen))  # loading the version has proven it
            labels.classifier.classify("where is my parcel", slot)

    def generate() -> None:
        with text.base.slots.pin(llama.first) as slot:
            passes.append(len(seen))
            assert write(text, "a text", "", slot, max_new_tokens=12)

    asked = [
        classify,
        generate,
        partial(labels.classifier.embed, "hello"),
        partial(labels.classifier.zero_shot, "hello", ["a", "b"]),
    ]
    for ask in asked:
        before = len(seen)
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(PATIENCE_S)
        assert len(seen) > before, "it was computed"
    assert passes[0] >= 1 and len(passes) == 2
    assert set(seen) == {compute_thread._thread}


def test_an_encoder_decoder_keeps_nobody_waiting(tmp_path: Path, callers: Callers) -> None:
    folder = tiny.make("t5", tmp_path / "t5")
    loaded = Loaded(ModelStore(tmp_path / "models", offline=True).resolve(str(folder)), "none")
    assert written(loaded, [9, 30, 41]), "while the thread is held by somebody else"


def test_two_bases_and_a_classifier_take_turns(bert: Trained, llama: Trained) -> None:
    order: list[str] = []
    one, two, labels = llama.load(), llama.load(), bert.load()
    begun, together = threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert together.wait(PATIENCE_S)
        return "one"

    noted(one, order, first)
    noted(two, order, lambda: "two")
    noted(labels, order, lambda: "labels")
    long, found = SamplingParams(max_new_tokens=60, temperature=1.0, seed=1), dict[str, list[int]]()
    alone = written(llama.load(), [9, 30, 41], long)
    assert len(alone) > 20

    def write(name: str, loaded: Loaded) -> None:
        found[name] = written(loaded, [9, 30, 41], long)

    def classify() -> None:
        for i in range(20):
            labels.classifier.embed(f"text {i}")

    threads = [
        threading.Thread(target=write, args=("one", one)),
        threading.Thread(target=write, args=("two", two)),
        threading.Thread(target=classify),
    ]
    threads[0].start()
    assert begun.wait(PATIENCE_S)
    for thread in threads[1:]:
        thread.start()
    together.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == {"one": alone, "two": alone} and order.count("labels") == 20
    shared = [each for each in order[: min(last(order, "one"), last(order, "two"))] if each != "labels"]
    switches = sum(before != after for before, after in pairwise(shared))
    assert switches > 10, f"neither waits for the other's end: {order}"


def last(order: list[str], name: str) -> int:
    return len(order) - 1 - order[::-1].index(name)
