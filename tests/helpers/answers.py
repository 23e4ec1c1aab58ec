"""Asking for answers: a base by itself, a pool over a home of its own, and a pool under load."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from models.resolve import ModelStore
from serving.base.base_model import BaseModel
from serving.base.slots import Slot
from serving.generation.request_queue import Request
from serving.generation.sampling import SamplingParams
from serving.lm import LM
from serving.loaded import Loaded
from serving.pool import Pool
from settings import Settings
from store.adapters import BASE, AdapterStore, Version
from tasks import TabSpec
from tests.conftest import Trained
from tests.helpers.exact import ATOL
from tests.helpers.versions import copy_of
from tests.helpers.waiting import until

PROMPTS = [[9, 30, 41, 57, 200], [80, 33], list(range(20, 90)), [300, 12, 12, 45, 99, 103, 7]]
GREEDY = SamplingParams(max_new_tokens=12)


def together(work: Callable[..., None], arguments: Sequence[tuple[object, ...]]) -> None:
    """Call `work` with each of the arguments, all at the same time."""
    threads = [threading.Thread(target=work, args=each) for each in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def classify(loaded: Loaded, version: Version | None, text: str) -> dict[str, float]:
    with loaded.base.slots.pin(version) as slot:
        return loaded.classifier.classify(text, slot)


def write(loaded: Loaded, text: str, prompt: str, slot: Slot | None, **options: Any) -> str:
    """The whole answer to a text."""
    request = loaded.generator.text_request(text, prompt, SamplingParams(**options), slot)
    return list(loaded.generator.stream(request))[-1]


def encode_texts(base: BaseModel, texts: Sequence[str], slot: Slot | None) -> tuple[Any, Mapping[str, torch.Tensor]]:
    """A base's outputs for texts as one padded batch, and the batch."""
    return base.run([base.tokenize(text).inputs for text in texts], [slot] * len(texts))


def written(loaded: Loaded, ids: list[int], params: SamplingParams = GREEDY, slot: Slot | None = None) -> list[int]:
    """The tokens that follow a prompt of tokens."""
    request = Request(ids, params, slot)
    loaded.generator.queue.put(request)
    return [token for some in request.tokens() for token in some]


def pool_at(home: Path, models: ModelStore | None = None, **settings: Any) -> Pool:
    """A pool over a home, offline and without any base."""
    values = {"home": home, "shipped": home / "none", "offline": True, "quantize": "none"} | settings
    return Pool(Settings(**values), models or ModelStore(home / "models", offline=True), AdapterStore(home))


class Store:
    """A home of its own with the two trained versions as `one@1`, `one@2` and `two@1`, and a pool over it."""

    def __init__(self, trained: Trained, home: Path) -> None:
        self.spec, self.trained, self.home = trained.spec, trained, home
        for source, name in ((trained.first, "one"), (trained.second, "one"), (trained.second, "two")):
            copy_of(source, home, name)
        self.pool = pool_at(home, trained.models)
        self.adapters = self.pool.adapters
        self.pool.declare(trained.spec.model)

    @property
    def loaded(self) -> Loaded:
        found: Loaded = self.pool.own(self.spec.model)
        return found

    def name(self, adapter: str = "live") -> str:
        """The version that answers."""
        with self.pool.open(self.spec, adapter) as lm:
            return lm.version


Ask = Callable[[LM, str], Any]


def ask_labels(lm: LM, text: str) -> Any:
    """Labels with probabilities; of the base the likeliest of two."""
    return max(lm.classify(text, ["praise", "delay"]).items()) if lm.version == BASE else lm.classify(text)


def ask_text(lm: LM, text: str) -> Any:
    return list(lm.generate(text, max_new_tokens=6))[-1]


def same(found: Any, wanted: Any) -> bool:
    """Whether two answers are the same: equal texts, or labels with probabilities that are close."""
    if isinstance(wanted, tuple):
        return bool(found[0] == wanted[0] and found[1] == pytest.approx(wanted[1], abs=ATOL))
    return bool(found == (pytest.approx(wanted, abs=ATOL) if isinstance(wanted, dict) else wanted))


@contextmanager
def under_load(
    pool: Pool, spec: TabSpec, ask: Ask, right: Callable[[LM, str, Any], bool], texts: Sequence[str], callers: int
) -> Iterator[Counter[str]]:
    """Ask the live version of a tab from several threads all the while; counts answers by version.

    Fails where a call failed or an answer was not `right(lm, text, answer)` for the version that it names.
    """
    wrong, seen, stop = list[str](), Counter[str](), threading.Event()

    def call(number: int) -> None:
        while not stop.is_set():
            text, number = texts[number % len(texts)], number + 1
            try:
                with pool.open(spec) as lm:
                    named = lm.version
                    found = ask(lm, text)
                    if lm.version != named or not right(lm, text, found):
                        wrong.append(f"{named} of {lm.base} answered {found} to {text}")
                    seen[named] += 1
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []


def wait_for_answer(seen: Counter[str], ref: str) -> None:
    """Wait until the version has answered once more."""
    before = seen[ref]
    until(lambda: seen[ref] > before)
