"""continuous.py: an answer is the same alone and beside any others, and rows join and leave between steps."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from errors import BusyError, ModelError
from models.resolve import ModelStore
from serving.base.slots import Slot
from serving.generation import continuous as module
from serving.generation import prefill, request_queue
from serving.generation import request as request_module
from serving.generation.continuous import Decoding
from serving.generation.request import Request
from serving.generation.sampling import Sampling
from serving.generation.static import Generating
from serving.loaded import Loaded
from tests.conftest import Trained
from tests.helpers import tiny
from tests.serving.base.test_base_model import together

PATIENCE_S = 60
PROMPTS = [[9, 30, 41, 57, 200], [80, 33], list(range(20, 90)), [300, 12, 12, 45, 99, 103, 7]]
GREEDY = Sampling(max_new_tokens=12)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Loaded]:
    made: dict[str, Loaded] = {}

    def base(family: str) -> Loaded:
        if family not in made:
            home = tmp_path_factory.mktemp(family)
            folder = tiny.make(family, home / family)
            made[family] = Loaded(ModelStore(home / "models", offline=True).resolve(str(folder)), "none")
        return made[family]

    return base


def written(loaded: Loaded, request: Request) -> list[int]:
    loaded.text._answers.submit(request)
    return [token for some in request.tokens() for token in some]


def beside(loaded: Loaded, requests: list[Request]) -> list[list[int]]:
    """What each is answered when all come at once."""
    found: dict[int, list[int]] = {}
    together(lambda i: found.update({i: written(loaded, requests[i])}), [(i,) for i in range(len(requests))])
    return [found[i] for i in range(len(requests))]


@pytest.mark.parametrize("family", [*tiny.DECODERS, *tiny.ENCODER_DECODERS])
def test_the_likeliest_tokens_are_those_of_transformers_alone_and_together(
    family: str, bases: Callable[[str], Loaded]
) -> None:
    loaded = bases(family)
    assert isinstance(loaded.text._answers, Decoding if family in tiny.DECODERS else Generating)
    net, pad = loaded.resident.net, loaded.resident.tokenizer.pad_token_id
    theirs = []
    for ids in PROMPTS:
        with torch.inference_mode():
            made = net.generate(
                torch.tensor([ids], device=net.device), max_new_tokens=12, do_sample=False, pad_token_id=pad,
                attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=net.device),
            )[0].tolist()  # fmt: skip
        made = made[1:] if family in tiny.ENCODER_DECODERS else made[len(ids) :]
        end = net.generation_config.eos_token_id
        theirs.append(made[: made.index(end)] if end in made else made)
    assert [written(loaded, Request(ids, GREEDY, None)) for ids in PROMPTS] == theirs
    assert beside(loaded, [Request(ids, GREEDY, None) for ids in PROMPTS * 3]) == theirs * 3


def test_rows_of_different_versions_are_each_answered_by_their_own(llama: Trained) -> None:
    loaded = llama.load()
    with ExitStack() as pinned:
        slots: list[Slot | None] = [None]
        slots += [pinned.enter_context(loaded.resident.pin(version)) for version in (llama.first, llama.second)]
        asked = [(ids, slot) for ids in PROMPTS for slot in slots]
        alone = [written(loaded, Request(ids, GREEDY, slot)) for ids, slot in asked]
        assert len({tuple(tokens) for tokens in alone[:3]}) == 3, "the versions must differ"
        assert beside(loaded, [Request(ids, GREEDY, slot) for ids, slot in asked]) == alone


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_seed_gives_the_same_answer_whoever_else_is_answered(family: str, bases: Callable[[str], Loaded]) -> None:
    loaded = bases(family)
    sampled = [Sampling(max_new_tokens=10, temperature=1.2, top_p=0.95, seed=seed) for seed in range(4)]
    alone = [written(loaded, Request(PROMPTS[0], how, None)) for how in sampled]
    assert len({tuple(tokens) for tokens in alone}) > 1
    others = [Request(ids, Sampling(max_new_tokens=15, temperature=0.7), None) for ids in PROMPTS]
    found = beside(loaded, [*others, *(Request(PROMPTS[0], how, None) for how in sampled), *others[:0]])
    assert found[len(others) :] == alone
    free = Sampling(max_new_tokens=10, temperature=1.2)
    assert written(loaded, Request(PROMPTS[0], free, None)) != written(loaded, Request(PROMPTS[0], free, None))


class Held:
    """A base whose steps wait until they are let go, one at a time."""

    def __init__(self, loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decoding = loaded.text._answers
        assert isinstance(self.decoding, Decoding)
        self.rows: list[int] = []
        self.entered, self.go = threading.Semaphore(0), threading.Semaphore(0)
        real = self.decoding._step

        def step(batch: Any) -> None:
            self.rows.append(len(batch.rows))
            self.entered.release()
            assert self.go.acquire(timeout=PATIENCE_S)
            real(batch)

        monkeypatch.setattr(self.decoding, "_step", step)

    def next(self) -> None:
        self.go.release()
        assert self.entered.acquire(timeout=PATIENCE_S)

    def submit(self, *requests: Request) -> None:
        for request in requests:
            self.decoding.submit(request)


@pytest.fixture
def held(bases: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    for thread in [t for t in threading.enumerate() if t.name == "graft-generate"]:
        thread.join(PATIENCE_S)  # what the test before has left behind counts on
    made = Held(bases("llama"), monkeypatch)
    yield made
    for _ in range(2000):
        made.go.release()


def asked(tokens: int = 200, prompt: int = 0) -> Request:
    return Request(PROMPTS[prompt], Sampling(max_new_tokens=tokens, temperature=1.0, seed=1), None)


def test_a_request_joins_between_two_steps_and_leaves_at_the_next_when_its_reader_goes(held: Held) -> None:
    first, second = asked(), asked(prompt=1)
    held.submit(first)
    assert held.entered.acquire(timeout=PATIENCE_S)
    held.submit(second)
    held.next()
    assert held.rows == [1, 2]
    first.stopped.set()
    held.next()
    assert held.rows == [1, 2, 1] and first.left.is_set() and not second.left.is_set()
    second.stopped.set()
    held.go.release()
    assert second.left.wait(PATIENCE_S)
    assert held.rows == [1, 2, 1]


def test_a_short_prompt_is_not_kept_waiting_by_a_long_one_nor_that_for_ever(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill, "PIECE", dict.fromkeys(prefill.PIECE, 8))
    held.submit(running := asked())
    assert held.entered.acquire(timeout=PATIENCE_S)
    long, short = Request(list(range(100, 200)), GREEDY, None), asked(prompt=1)
    held.submit(long, short)
    held.next()
    assert short.written and not long.written
    for i in range(28):  # others keep coming, four in a pass, each of them shorter than what is left of the long one
        held.submit(Request([50 + i, 60], Sampling(max_new_tokens=1), None))
    before = next(j for j in read_now(held) if j.request is long).read
    for _ in range(prefill.TURN):
        held.next()
    assert next(j for j in read_now(held) if j.request is long).read > before
    for request in (running, long, short):
        request.stopped.set()


def read_now(held: Held) -> Any:
    """What is being read, as the thread that decodes sees it."""
    import sys

    frames = [frame for frame in sys._current_frames().values() for frame in stack(frame)]
    return next(
        f.f_locals["batch"] for f in frames if f.f_code.co_name == "_run" and "batch" in f.f_locals
    ).reading.joining


def stack(frame: Any) -> Iterator[Any]:
    while frame:
        yield frame
        frame = frame.f_back


def test_who_waits_is_told_how_many_are_before_and_too_many_are_told_to_come_again(
    held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", dict.fromkeys(module.ROWS, 2))
    monkeypatch.setattr(request_queue, "WAITING", 3)
    held.submit(first := asked(3))
    assert held.entered.acquire(timeout=PATIENCE_S)
    held.submit(second := asked(3))
    held.next()
    third, fourth, fifth = asked(3), asked(3), asked(3)
    held.submit(third, fourth, fifth)
    assert [held.decoding.before(request) for request in (first, second, third, fourth, fifth)] == [0, 0, 0, 1, 2]
    with pytest.raises(BusyError, match="3 requests wait"):
        held.submit(asked())
    fourth.stopped.set()
    held.next()
    assert fourth.left.is_set(), "whoever goes leaves the line at once"
    assert held.decoding.before(fifth) <= 1 and max(held.rows) == 2
    for request in (first, second, third, fifth):
        request.stopped.set()


def test_rows_beyond_the_memory_for_keys_and_values_wait(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held.decoding, "_most_bytes", 1)
    held.submit(first := asked(5))
    assert held.entered.acquire(timeout=PATIENCE_S)
    held.submit(second := asked(5))
    held.next()
    held.next()
    assert held.rows == [1, 1, 1] and not second.written and not first.left.is_set()
    first.stopped.set()
    held.next()
    assert second.written, "one row may always run"
    second.stopped.set()


def test_those_who_come_together_to_an_idle_base_wait_for_that_memory_too(
    bases: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoding, (first, second) = bases("llama").text._answers, (asked(5), asked(5))
    idle = module._Batch(prefill.Reading(bases("llama").resident))
    assert decoding._fits(idle, [first], second)
    monkeypatch.setattr(decoding, "_most_bytes", 1)
    assert decoding._fits(idle, [], first) and not decoding._fits(idle, [first], second)


def test_keys_and_values_have_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    for free, most in ((10**9, 25 * 10**7), (10**12, module.CACHE_BYTES)):
        monkeypatch.setattr(module.free_memory, "free", lambda free=free: free)
        assert module._most_bytes(torch.device("cpu")) == most


@pytest.mark.parametrize("part", ["_join", "_read", "_begin", "_write", "_step", "_forward", "_leave"])
def test_an_error_reaches_every_reader_and_later_requests_are_answered(
    part: str, bases: Callable[[str], Loaded], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = bases("llama")
    with monkeypatch.context() as patched:
        if part == "_join":
            patched.setattr(module, "Choice", lambda *_: 1 / 0)
        else:
            patched.setattr(loaded.text._answers, part, lambda *_: 1 / 0)
        request = Request(PROMPTS[0], GREEDY, None)
        with pytest.raises(ZeroDivisionError):
            written(loaded, request)
    assert written(loaded, Request(PROMPTS[0], GREEDY, None))


def test_a_request_that_cannot_begin_fails_alone(held: Held) -> None:
    held.submit(running := asked())
    assert held.entered.acquire(timeout=PATIENCE_S)
    bad = Request(PROMPTS[3], GREEDY, cast("Slot", object()))
    held.submit(bad, *(good := [Request(PROMPTS[i], GREEDY, None) for i in (0, 1)]))
    held.next()
    held.next()
    with pytest.raises(AttributeError):
        list(bad.tokens())
    assert all(request.written for request in good), "they were to be read in one pass with it"
    assert not running.left.is_set()
    for request in (running, *good):
        request.stopped.set()


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_a_token_that_the_base_does_not_have_never_reaches_it(family: str, bases: Callable[[str], Loaded]) -> None:
    """A GPU looks it up outside of its memory, and is of no use to the process any more."""
    loaded = bases(family)
    passes: list[int] = []
    hook = loaded.resident.net.register_forward_hook(lambda *_: passes.append(1))
    with pytest.raises(ModelError, match=r"makes token 1,000,000,000 .* has tokens 0 to \d+\. Choose"):
        written(loaded, Request([5, 10**9], GREEDY, None))
    hook.remove()
    assert not passes and written(loaded, Request(PROMPTS[0], GREEDY, None))


def test_an_answer_is_cut_at_its_deadline_and_one_that_never_began_is_told(
    bases: Callable[[str], Loaded], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    held.submit(first := asked())
    assert held.entered.acquire(timeout=PATIENCE_S)
    monkeypatch.setattr(module, "ROWS", dict.fromkeys(module.ROWS, 1))
    held.submit(waiting := asked())
    monkeypatch.setattr(request_module, "DEADLINE_S", 0.0)
    held.go.release()
    assert [token for some in first.tokens() for token in some] and first.late
    with pytest.raises(BusyError, match="not begun"):
        list(waiting.tokens())


def test_a_prompt_that_begins_alike_is_read_once_for_each_version(
    llama: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = llama.load()
    read: list[int] = []
    decoding = loaded.text._answers
    assert isinstance(decoding, Decoding)
    real = decoding._read
    monkeypatch.setattr(
        decoding, "_read", lambda batch, some: (read.extend(j.left for j in some), real(batch, some))[1]
    )
    system = list(range(100, 140))
    with loaded.resident.pin(llama.first) as one, loaded.resident.pin(llama.second) as two:
        cold = {id(slot): written(loaded, Request([*system, 9, 10], GREEDY, slot)) for slot in (one, two, None)}
        assert read == [42, 42, 42], "never across versions"
        warm = {id(slot): written(loaded, Request([*system, 9, 10], GREEDY, slot)) for slot in (one, two, None)}
        assert read[3:] == [1, 1, 1] and warm == cold
        written(loaded, Request([*system, 11, 12, 13], GREEDY, one))
        assert read[-1] == 3


def test_a_base_that_decodes_rows_otherwise_than_alone_is_asked_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.make("gpt2", tmp_path / "gpt2")
    model = ModelStore(tmp_path / "models", offline=True).resolve(str(folder))
    monkeypatch.setattr(module.RowsCache, "positions", lambda cache: [[cache.length]] * len(cache.starts))
    loaded = Loaded(model, "none")
    assert isinstance(loaded.text._answers, Generating) and loaded.text._answers._rows == 1
    alone = [written(loaded, Request(ids, GREEDY, None)) for ids in PROMPTS]
    assert beside(loaded, [Request(ids, GREEDY, None) for ids in PROMPTS]) == alone and all(alone)
