"""serving/compute_thread.py: jobs of many threads take turns in one; each caller gets what is his own."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from serving import compute_thread
from serving.generation.sampling import SamplingParams
from serving.loaded import Loaded
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.answers import load, together, write, written
from tests.helpers.child import run
from tests.helpers.waiting import PATIENCE_S, until


class Callers:
    """Threads that ask for jobs while another job is held, so that they are known to wait."""

    def __init__(self) -> None:
        self.go, entered = threading.Event(), threading.Event()
        self.threads = ThreadPoolExecutor(30)
        compute_thread.submit(lambda: (entered.set(), self.go.wait(PATIENCE_S)))
        assert entered.wait(PATIENCE_S)

    def ask(self, work: Callable[[], Any]) -> Future[Any]:
        """Return when the job waits in the queue."""
        before = compute_thread._waiting.qsize()
        future = self.threads.submit(compute_thread.run, work)
        until(lambda: compute_thread._waiting.qsize() > before)
        return future


@pytest.fixture
def callers() -> Iterator[Callers]:
    made = Callers()
    yield made
    made.go.set()
    made.threads.shutdown()


def test_jobs_run_in_order_and_each_caller_gets_its_own_result(callers: Callers) -> None:
    order: list[int] = []
    jobs = [callers.ask(lambda i=i: (order.append(i), i * 7)[1]) for i in range(20)]
    assert order == [] and not any(job.done() for job in jobs)
    callers.go.set()
    assert [job.result(PATIENCE_S) for job in jobs] == [i * 7 for i in range(20)]
    assert order == list(range(20))


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
def test_an_error_reaches_its_caller_alone_and_the_thread_goes_on(callers: Callers, kind: type[BaseException]) -> None:
    def fail() -> None:
        raise kind("bad")

    before, bad = callers.ask(lambda: 1), callers.ask(fail)
    compute_thread.submit(fail)  # for which nobody waits
    after = callers.ask(threading.current_thread)
    callers.go.set()
    assert isinstance(bad.exception(PATIENCE_S), kind)
    assert before.result() == 1 and after.result(PATIENCE_S) is compute_thread._thread


def test_a_job_that_asks_for_another_has_it_at_once() -> None:
    assert compute_thread.run(lambda: compute_thread.run(threading.current_thread)) is compute_thread._thread
    with pytest.raises(ValueError, match="bad"):
        compute_thread.run(lambda: compute_thread.run(lambda: int("bad")))


@pytest.mark.parametrize("text", ["3", "bad"])
def test_a_job_is_referenced_by_nothing_when_it_is_done(text: str) -> None:
    class Net:
        def work(self) -> int:
            return int(text)

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
    done = run("-c", ENDS_MEANWHILE)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def record(loaded: Loaded, seen: list[Any], what: Callable[[], Any]) -> None:
    """Append what `what` gives to the list at each pass of a base."""
    loaded.base.body.register_forward_hook(lambda *_: seen.append(what()))


def test_passes_of_all_bases_are_computed_in_one_thread(bert: Trained, llama: Trained) -> None:
    seen: list[threading.Thread] = []
    labels, text = bert.load(), llama.load()
    for loaded in (labels, text):
        record(loaded, seen, threading.current_thread)

    def load_versions() -> None:  # whose effect is checked by a pass
        for loaded, version in ((labels, bert.first), (text, llama.first)):
            with loaded.base.slots.pin(version):
                pass

    asked: list[Callable[[], Any]] = [
        load_versions,
        partial(write, text, "a text", "", None, max_new_tokens=12),
        partial(labels.classifier.embed, "hello"),
        partial(labels.classifier.zero_shot, "hello", ["a", "b"]),
    ]
    for ask in asked:
        before = len(seen)
        together(ask, [()])
        assert len(seen) > before, "it was computed"
    assert set(seen) == {compute_thread._thread}


def test_an_encoder_decoder_keeps_nobody_waiting(tmp_path: Path, callers: Callers) -> None:
    loaded = load(tiny.make("t5", tmp_path / "t5"))
    assert written(loaded, [9, 30, 41]), "while the thread is held by somebody else"


def test_two_bases_and_a_classifier_take_turns(bert: Trained, llama: Trained) -> None:
    order: list[str] = []
    bases = {"one": llama.load(), "two": llama.load()}
    labels, begun, others = bert.load(), threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert others.wait(PATIENCE_S)
        return "one"

    record(bases["one"], order, first)
    record(bases["two"], order, lambda: "two")
    record(labels, order, lambda: "labels")
    params = SamplingParams(max_new_tokens=60, temperature=1.0, seed=1)
    alone = written(llama.load(), [9, 30, 41], params)
    assert len(alone) > 20

    def ask(name: str) -> Any:
        if name == "labels":
            return [labels.classifier.embed(f"text {i}") for i in range(20)]
        return written(bases[name], [9, 30, 41], params)

    with ThreadPoolExecutor(3) as threads:
        one = threads.submit(ask, "one")
        assert begun.wait(PATIENCE_S)
        two, many = threads.submit(ask, "two"), threads.submit(ask, "labels")
        others.set()
        assert one.result(PATIENCE_S) == two.result(PATIENCE_S) == alone and len(many.result(PATIENCE_S)) == 20
    last = min(len(order) - order[::-1].index(name) for name in bases)
    shared = [name for name in order[:last] if name != "labels"]
    switches = sum(before != after for before, after in pairwise(shared))
    assert switches > 10, f"neither waits for the other's end: {order}"
