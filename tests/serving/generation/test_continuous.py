"""continuous.py: an answer is the same alone and beside any others, and rows join and leave between steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from errors import BusyError, ModelError
from serving.base.slots import Slot
from serving.generation import continuous as module
from serving.generation import generator, prefill, request_queue
from serving.generation.continuous import ContinuousBatching
from serving.generation.request_queue import Request
from serving.generation.sampling import SamplingParams
from serving.generation.static import StaticBatching
from serving.loaded import Loaded
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.answers import GREEDY, PROMPTS, load, together, written
from tests.helpers.waiting import PATIENCE_S

Asked = tuple[list[int], SamplingParams, Slot | None]


def beside(loaded: Loaded, asked: Sequence[Asked]) -> list[list[int]]:
    """Return the answers to prompts that all come at once."""
    return together(lambda *one: written(loaded, *one), asked)


@pytest.mark.parametrize("family", [*tiny.DECODERS, *tiny.ENCODER_DECODERS])
def test_the_likeliest_tokens_are_those_of_transformers_alone_and_together(
    family: str, bases: Callable[[str], Loaded]
) -> None:
    loaded = bases(family)
    assert type(loaded.generator.batching) is (ContinuousBatching if family in tiny.DECODERS else StaticBatching)
    net, pad = loaded.base.net, loaded.base.tokenizer.pad_token_id
    theirs = []
    for ids in PROMPTS:
        inputs = torch.tensor([ids], device=net.device)
        how = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": pad}
        with torch.inference_mode():
            made = net.generate(inputs, attention_mask=torch.ones_like(inputs), **how)[0].tolist()
        made = made[1:] if family in tiny.ENCODER_DECODERS else made[len(ids) :]
        end = net.generation_config.eos_token_id
        theirs.append(made[: made.index(end)] if end in made else made)
    assert [written(loaded, ids) for ids in PROMPTS] == theirs
    assert beside(loaded, [(ids, GREEDY, None) for ids in PROMPTS * 3]) == theirs * 3


def test_rows_of_different_versions_are_each_answered_by_their_own(llama: Trained) -> None:
    loaded = llama.load()
    with ExitStack() as pinned:
        slots = [pinned.enter_context(loaded.base.slots.pin(version)) for version in (None, llama.first, llama.second)]
        asked = [(ids, GREEDY, slot) for ids in PROMPTS for slot in slots]
        alone = [written(loaded, *each) for each in asked]
        assert len({tuple(tokens) for tokens in alone[:3]}) == 3, "the versions must differ"
        assert beside(loaded, asked) == alone


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_seed_gives_the_same_answer_whatever_else_is_in_the_batch(
    family: str, bases: Callable[[str], Loaded]
) -> None:
    loaded = bases(family)
    sampled = [SamplingParams(max_new_tokens=10, temperature=1.2, top_p=0.95, seed=seed) for seed in range(4)]
    alone = [written(loaded, PROMPTS[0], how) for how in sampled]
    assert len({tuple(tokens) for tokens in alone}) > 1
    others: list[Asked] = [(ids, SamplingParams(max_new_tokens=15, temperature=0.7), None) for ids in PROMPTS]
    found = beside(loaded, [*others, *((PROMPTS[0], how, None) for how in sampled)])
    assert found[len(others) :] == alone


class Held:
    """A base whose steps wait until they are let go, one at a time."""

    def __init__(self, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded, self.queue = loaded, loaded.generator.queue
        self.rows: list[int] = []
        self.prefill: prefill.Prefill | None = None
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        batching = loaded.generator.batching
        assert isinstance(batching, ContinuousBatching)
        real = batching._step

        def step(batch: Any) -> None:
            self.prefill = batch.prefill
            self.rows.append(len(batch.rows))
            self.entered.release()
            assert self.go.acquire(timeout=PATIENCE_S)
            real(batch)

        monkeypatch.setattr(batching, "_step", step)

    def begin(self, request: Request) -> Request:
        """Submit the first request, and wait until a step with it is held."""
        self.submit(request)
        assert self.entered.acquire(timeout=PATIENCE_S)
        return request

    def next(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.go.release()
            assert self.entered.acquire(timeout=PATIENCE_S)

    def submit(self, *requests: Request) -> None:
        for request in requests:
            self.queue.put(request)


def cancel(*requests: Request) -> None:
    for request in requests:
        request.cancelled.set()


@pytest.fixture
def held(bases: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    for thread in [t for t in threading.enumerate() if t.name == "graft-generate"]:
        thread.join(PATIENCE_S)  # what the test before has left behind counts on
    made = Held(bases("llama"), monkeypatch)
    yield made
    made.go.release(2000)


def limit_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(module, "ROWS", dict.fromkeys(module.ROWS, rows))


def sampled(tokens: int = 200, prompt: int = 0) -> Request:
    return Request(PROMPTS[prompt], SamplingParams(max_new_tokens=tokens, temperature=1.0, seed=1), None)


def greedy(ids: list[int], tokens: int = 12) -> Request:
    return Request(ids, SamplingParams(max_new_tokens=tokens), None)


def test_a_request_joins_between_two_steps_and_leaves_at_the_next_when_its_reader_goes(held: Held) -> None:
    first, second = held.begin(sampled()), sampled(prompt=1)
    held.submit(second)
    held.next()
    assert held.rows == [1, 2]
    cancel(first)
    held.next()
    assert held.rows == [1, 2, 1] and first.finished.is_set() and not second.finished.is_set()
    cancel(second)
    held.go.release()
    assert second.finished.wait(PATIENCE_S)
    assert held.rows == [1, 2, 1]


def test_a_short_prompt_is_not_kept_waiting_by_a_long_one_nor_that_for_ever(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill, "PIECE", dict.fromkeys(prefill.PIECE, 8))
    running, long, short = held.begin(sampled()), greedy(list(range(100, 200))), sampled(prompt=1)
    held.submit(long, short)
    held.next()
    assert short.written and not long.written and held.prefill
    [waiting] = held.prefill.requests
    for i in range(28):  # others keep coming, four in a pass, each of them shorter than what is left of the long one
        held.submit(greedy([50 + i, 60], 1))
    before = waiting.read
    held.next(prefill.FAIR)
    assert waiting.request is long and waiting.read > before
    cancel(running, long, short)


def test_waiting_requests_know_their_place_and_too_many_are_refused(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit_rows(monkeypatch, 2)
    monkeypatch.setattr(request_queue, "WAITING", 3)
    first, second = held.begin(sampled(3)), sampled(3)
    held.submit(second)
    held.next()
    third, fourth, fifth = sampled(3), sampled(3), sampled(3)
    held.submit(third, fourth, fifth)
    assert [held.queue.ahead(request) for request in (first, second, third, fourth, fifth)] == [0, 0, 0, 1, 2]
    with pytest.raises(BusyError, match="3 requests wait"):
        held.submit(sampled())
    cancel(fourth)
    held.next()
    assert fourth.finished.is_set(), "a cancelled request leaves the queue at once"
    assert held.queue.ahead(fifth) <= 1 and max(held.rows) == 2
    cancel(first, second, third, fifth)


def test_rows_beyond_the_memory_for_keys_and_values_wait(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    batching, (first, second) = held.loaded.generator.batching, (sampled(5), sampled(5))
    idle = module._Batch(prefill.Prefill(held.loaded.base))
    assert batching._fits(idle, [first], second)
    monkeypatch.setattr(batching, "_most_bytes", 1)
    assert batching._fits(idle, [], first) and not batching._fits(idle, [first], second), "both came to an idle base"
    held.begin(first)
    held.submit(second)
    held.next(2)
    assert held.rows == [1, 1, 1] and not second.written and not first.finished.is_set()
    cancel(first)
    held.next()
    assert second.written, "one row may always run"
    cancel(second)


def test_keys_and_values_have_a_share_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, most in ((10**9, 25 * 10**7), (10**12, module.CACHE_BYTES)):
        monkeypatch.setattr(module.quota, "free_memory", lambda free=free: free)
        assert module._most_bytes(torch.device("cpu")) == most


@pytest.mark.parametrize("part", ["_join", "_read", "_begin", "_write", "_step", "_forward", "_leave"])
def test_an_error_reaches_every_reader_and_later_requests_are_answered(
    part: str, bases: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = bases("llama")
    with monkeypatch.context() as patched:
        where, name = (module, "TokenSampler") if part == "_join" else (loaded.generator.batching, part)
        patched.setattr(where, name, lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            written(loaded, PROMPTS[0])
    assert written(loaded, PROMPTS[0])


def test_a_request_that_cannot_begin_fails_alone(held: Held) -> None:
    running = held.begin(sampled())
    bad = Request(PROMPTS[3], GREEDY, cast("Slot", object()))
    held.submit(bad, *(good := [greedy(PROMPTS[i]) for i in (0, 1)]))
    held.next(2)
    with pytest.raises(AttributeError):
        list(bad.tokens())
    assert all(request.written for request in good), "they were to be read in one pass with it"
    assert not running.finished.is_set()
    cancel(running, *good)


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_token_that_the_base_does_not_have_never_reaches_it(family: str, bases: Callable[[str], Loaded]) -> None:
    """A GPU looks it up outside of its memory, and is of no use to the process any more."""
    loaded = bases(family)
    passes: list[int] = []
    hook = loaded.base.net.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(ModelError, match=r"makes token 1,000,000,000 .* has tokens 0 to \d+\. Choose"):
        list(loaded.generator.stream(greedy([5, 10**9])))
    hook.remove()
    assert not passes and written(loaded, PROMPTS[0])


class Crosses:
    """A detokenizer under which no token is an incomplete character."""

    def __init__(self, tokenizer: object) -> None:
        self.text = ""

    def add(self, ids: Sequence[int], last: bool = False) -> bool:
        self.text += "x" * len(ids)
        return bool(ids)


def test_an_answer_is_cut_at_its_deadline_and_one_that_never_began_is_refused(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator, "Detokenizer", Crosses)
    first = sampled()
    growing = held.loaded.generator.stream(first)
    reader = threading.Thread(target=lambda: pieces.extend((text, len(first.notes)) for text in growing))
    pieces: list[tuple[str, int]] = []
    reader.start()
    assert held.entered.acquire(timeout=PATIENCE_S)
    limit_rows(monkeypatch, 1)
    held.submit(waiting := sampled())
    monkeypatch.setattr(request_queue, "DEADLINE_S", 0.0)
    held.go.release()
    reader.join(PATIENCE_S)
    assert first.late and pieces[0][1] == 0 and pieces[-1][1] == 1, "the last piece comes with the note"
    with pytest.raises(BusyError, match="not begun"):
        list(waiting.tokens())


def test_a_prompt_that_begins_alike_is_read_once_for_each_version(
    llama: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, read = llama.load(), list[int]()
    batching = loaded.generator.batching
    real = batching._read
    monkeypatch.setattr(
        batching, "_read", lambda batch, some: (read.extend(waiting.left for waiting in some), real(batch, some))[1]
    )
    system = list(range(100, 140))
    with loaded.base.slots.pin(llama.first) as one, loaded.base.slots.pin(llama.second) as two:
        cold = [written(loaded, [*system, 9, 10], GREEDY, slot) for slot in (one, two, None)]
        warm = [written(loaded, [*system, 9, 10], GREEDY, slot) for slot in (one, two, None)]
        assert warm == cold and read == [42, 42, 42, 1, 1, 1], "never across versions"
        written(loaded, [*system, 11, 12, 13], GREEDY, one)
        assert read[-1] == 3


def test_a_base_that_decodes_rows_otherwise_than_alone_is_asked_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.BatchedKVCache, "positions", lambda cache: [[cache.length]] * len(cache.starts))
    loaded = load(tiny.make("gpt2", tmp_path / "gpt2"))
    assert isinstance(loaded.generator.batching, StaticBatching) and loaded.generator.batching._rows == 1
    alone = [written(loaded, ids) for ids in PROMPTS]
    assert beside(loaded, [(ids, GREEDY, None) for ids in PROMPTS]) == alone and all(alone)
