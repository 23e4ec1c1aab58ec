"""The promise: while versions are published, promoted, rolled back and evicted, every answer is its version's own.

Eight threads ask the live version of a tab all the while. Each answer equals, by the golden made beforehand and alone,
what the version that it names answers; and no call fails.
"""

from __future__ import annotations

import gc
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from serving.base.slots import CAPACITY, IN_USE, Slot
from serving.lm import LM
from serving.pool import Pool
from store.adapters import BASE, Version
from tests.conftest import Trained
from tests.helpers.answers import ask_labels, ask_text, pool_at, same, under_load, wait_for_answer, write
from tests.helpers.versions import copy_of

MOVES = 40
CALLERS = 8
TEXTS = ["where is my parcel", "thank you, well done", "the app crashes on start"]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_r10_every_answer_is_that_of_the_version_it_names(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    trained: Trained = request.getfixturevalue(kind)
    ask = ask_labels if kind == "bert" else ask_text
    pool = pool_at(tmp_path, trained.models)
    pool.declare(trained.spec.model)
    sources, made_from = (trained.first, trained.second), {BASE: BASE}
    golden: dict[tuple[str, str], Any] = {}

    def remember(ref: str) -> None:
        for text in TEXTS:
            with pool.open(trained.spec, ref) as lm:
                golden[made_from[ref], text] = ask(lm, text)

    remember(BASE)
    for source in sources:
        version = copy_of(source, tmp_path, source.name)
        made_from[version.ref] = source.ref
        remember(version.ref)
    assert len({str(golden[ref, TEXTS[0]]) for ref in made_from.values()}) == 3, "the versions must differ"

    def right(lm: LM, text: str, found: Any) -> bool:
        return same(found, golden[made_from[lm.version], text])

    with under_load(pool, trained.spec, ask, right, TEXTS, CALLERS) as seen:
        move(pool, trained, sources, made_from, seen)
    assert len(seen) > CAPACITY, "enough versions to evict unused ones"
    slots = pool.own(trained.spec.model).base.slots
    assert len(slots.loaded) <= (IN_USE if slots._spare else CAPACITY)


def move(
    pool: Pool, trained: Trained, sources: tuple[Version, ...], made_from: dict[str, str], seen: Counter[str]
) -> None:
    """Publish and promote, promote the base, roll back, 40 times in all, each once the one before has answered."""
    tab, store = trained.spec.name, pool.adapters
    for i in range(MOVES):
        if i % 4 == 3:
            store.roll_back(tab)
        elif i % 8 == 6:
            store.promote(tab, BASE)
        else:
            # Named before it is visible: a caller may answer with it at once.
            made_from[f"swap{i}@1"] = sources[i % 2].ref
            copy_of(sources[i % 2], store.root.parent, f"swap{i}")
            store.promote(tab, f"swap{i}@1")
            pool.warm(trained.spec)
        live = store.live(tab)
        wait_for_answer(seen, live.ref if live else BASE)


SWAPS = 500


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_five_hundred_swaps_leave_nothing_behind(kind: str, request: pytest.FixtureRequest) -> None:
    """Each version is loaded, answers, and is evicted; of its tensors, and of what it left in caches, nothing stays."""
    trained: Trained = request.getfixturevalue(kind)
    loaded = trained.load()
    loaded.base.slots._spare = 0  # of a GPU's memory there is some
    slots: list[weakref.ref[Slot]] = []
    counts: list[int] = []
    for i in range(SWAPS):
        version = replace((trained.first, trained.second)[i % 2], number=1000 + i)
        with loaded.base.slots.pin(version) as slot:
            assert slot is not None
            slots.append(weakref.ref(slot))
            if kind == "bert":
                loaded.classifier.classify(TEXTS[i % 3], slot)
            elif i % 5 == 0:
                write(loaded, TEXTS[i % 3] * 4, "", slot, max_new_tokens=2)
            del slot
        if i in (SWAPS // 5, SWAPS - 1):
            counts.append(live_tensors())
    assert sum(slot() is not None for slot in slots) <= CAPACITY
    assert counts[1] <= counts[0] + 20, counts


def live_tensors() -> int:
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())
