"""Asking for answers: a base by itself, and a pool over a home of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from store.adapters import BASE, AdapterStore
from tests.conftest import Trained
from tests.helpers.exact import ATOL
from tests.helpers.versions import copy_of

PROMPTS = [[9, 30, 41, 57, 200], [80, 33], list(range(20, 90)), [300, 12, 12, 45, 99, 103, 7]]
GREEDY = SamplingParams(max_new_tokens=12)


def together(work: Callable[..., Any], arguments: Sequence[tuple[object, ...]]) -> list[Any]:
    """Call `work` with each of the arguments, all at the same time; returns the results, or raises the first error."""
    with ThreadPoolExecutor(len(arguments)) as threads:
        return list(threads.map(lambda each: work(*each), arguments))


def load(folder: Path, quantize: str = "none", precision: str = "auto") -> Loaded:
    """Load the base in a folder."""
    model = ModelStore(folder.parent / "models", offline=True).resolve(str(folder))
    return Loaded(model, quantize, precision)


def write(loaded: Loaded, text: str, prompt: str, slot: Slot | None, **options: Any) -> str:
    """Return the whole answer to a text."""
    request = loaded.generator.text_request(text, prompt, SamplingParams(**options), slot)
    return list(loaded.generator.stream(request))[-1]


def encode_texts(base: BaseModel, texts: Sequence[str], slot: Slot | None) -> tuple[Any, Mapping[str, torch.Tensor]]:
    """Return a base's outputs for texts as one padded batch, and the batch."""
    return base.run([base.tokenize(text).inputs for text in texts], [slot] * len(texts))


def written(loaded: Loaded, ids: list[int], params: SamplingParams = GREEDY, slot: Slot | None = None) -> list[int]:
    """Return the tokens that follow a prompt of tokens."""
    request = Request(ids, params, slot)
    loaded.generator.queue.put(request)
    return [token for some in request.tokens() for token in some]


def pool_at(home: Path, models: ModelStore | None = None, base: str = "", **settings: Any) -> Pool:
    """Make a pool over a home, offline; it has begun to load `base`, if there is one."""
    values = {"home": home, "shipped": home / "none", "offline": True, "quantize": "none"} | settings
    pool = Pool(Settings(**values), models or ModelStore(home / "models", offline=True), AdapterStore(home))
    if base:
        pool.declare(base)
    return pool


class Store:
    """A home with the two trained versions as `one@1`, `one@2` and `two@1`, and a pool over it."""

    def __init__(self, trained: Trained, home: Path) -> None:
        self.spec, self.trained, self.home = trained.spec, trained, home
        for source, name in ((trained.first, "one"), (trained.second, "one"), (trained.second, "two")):
            copy_of(source, home, name)
        self.pool = pool_at(home, trained.models, trained.spec.model)
        self.adapters = self.pool.adapters

    @property
    def loaded(self) -> Loaded:
        found: Loaded = self.pool.own(self.spec.model)
        return found

    def name(self, adapter: str = "live") -> str:
        """Return the version that answers."""
        with self.pool.open(self.spec, adapter) as lm:
            return lm.version


def ask(lm: LM, text: str) -> Any:
    """Return labels with probabilities, of the base those of given labels; or a text of six tokens."""
    if lm._spec.task == "text-classification":
        return lm.classify(text, ["praise", "delay"] if lm.version == BASE else None)
    return list(lm.generate(text, max_new_tokens=6))[-1]


def same(found: Any, wanted: Any) -> bool:
    """Return whether two answers are the same: equal texts, or labels with probabilities that are close."""
    return bool(found == (pytest.approx(wanted, abs=ATOL) if isinstance(wanted, dict) else wanted))
