"""The promise: while versions are published, promoted, rolled back and evicted, every answer is its version's own.

`SWAP_MOVES=250 pytest tests/serving/test_swap.py` makes more changes than the suite does.
"""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from errors import AdapterError
from serving.base.slots import CAPACITY, IN_USE, Slot
from store.adapters import BASE
from tests.conftest import Trained
from tests.helpers.answers import pool_at, write
from tests.helpers.load import TEXTS, Load
from tests.helpers.versions import copy_of
from tests.slow import size

pytestmark = pytest.mark.slow

MOVES = int(size("SWAP_MOVES", 40))
SWAPS = 500


def test_r10_every_answer_is_that_of_the_version_it_names(trained: Trained, tmp_path: Path) -> None:
    pool = pool_at(tmp_path, trained.models, trained.spec.model)
    load = Load(pool, trained.spec)
    sources = [copy_of(source, tmp_path, source.name) for source in (trained.first, trained.second)]
    load.remember(BASE, *(source.ref for source in sources))
    with load.running(8):
        for i in range(MOVES):
            if i % 4 == 3:
                load.roll_back()
            elif i % 8 == 6:
                load.promote(BASE)
            else:
                version = copy_of(sources[i % 2], tmp_path, f"swap{i}")
                load.sources[version.ref] = sources[i % 2].ref
                load.promote(version.ref)
            with suppress(AdapterError):  # it is in use
                pool.release(f"swap{i // 2}@1")
    assert len(load.seen) > CAPACITY, "enough versions to evict unused ones"
    slots = pool.own(trained.spec.model).base.slots
    assert len(slots.loaded) <= (IN_USE if slots._spare else CAPACITY)


def test_r29_five_hundred_swaps_leave_nothing_behind(trained: Trained) -> None:
    """Each version is loaded, answers, and is evicted; of its tensors, and of what it left in caches, nothing stays."""
    loaded = trained.load()
    loaded.base.slots._spare = 0  # of a GPU's memory there is some
    slots: list[weakref.ref[Slot]] = []
    counts: list[int] = []
    for i in range(SWAPS):
        version = replace((trained.first, trained.second)[i % 2], number=1000 + i)
        with loaded.base.slots.pin(version) as slot:
            assert slot is not None
            slots.append(weakref.ref(slot))
            if version.labels:
                loaded.classifier.classify(TEXTS[i % 3], slot)
            elif i % 5 == 0:
                write(loaded, TEXTS[i % 3] * 4, "", slot, max_new_tokens=2)
            del slot
        if i in (SWAPS // 5, SWAPS - 1):
            gc.collect()
            counts.append(sum(type(thing) is torch.Tensor for thing in gc.get_objects()))
    assert sum(slot() is not None for slot in slots) <= CAPACITY
    assert counts[1] <= counts[0] + 20, counts
