"""The promise: while versions are published, promoted, rolled back and evicted, every answer is its version's own.

Eight threads ask the live version of a tab all the while. Each answer equals, by the golden made beforehand and alone,
what the version that it names answers; and no call fails.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from serving.base.slots import CAPACITY, IN_USE, Slot
from serving.generation.sampling import Sampling
from serving.lm import LM
from serving.pool import Pool
from settings import Settings
from store.adapters import BASE, AdapterStore, Version
from tests.conftest import Trained
from tests.helpers.exact import ATOL
from tests.serving.base.test_base_model import copy_of

MOVES = 40
CALLERS = 8
TEXTS = ["where is my parcel", "thank you, well done", "the app crashes on start"]
Ask = Callable[[LM, str], Any]


def ask_labels(lm: LM, text: str) -> Any:
    return max(lm.classify(text, ["praise", "delay"]).items()) if lm.version == BASE else lm.classify(text)


def ask_text(lm: LM, text: str) -> Any:
    return list(lm.generate(text, max_new_tokens=6))[-1]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_r10_every_answer_is_that_of_the_version_it_names(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    trained: Trained = request.getfixturevalue(kind)
    ask: Ask = ask_labels if kind == "bert" else ask_text
    store = AdapterStore(tmp_path)
    settings = Settings(home=tmp_path, shipped=tmp_path / "none", offline=True, quantize="none")
    pool = Pool(settings, trained.models, store)
    pool.declare(trained.spec.model)
    sources = {source.ref: source for source in (trained.first, trained.second)}
    made_from = {BASE: BASE}
    golden = {(BASE, text): answer(pool, trained, ask, BASE, text) for text in TEXTS}
    for source in sources.values():
        version = publish(store, trained, source, source.name)
        made_from[version.ref] = source.ref
        golden |= {(source.ref, text): answer(pool, trained, ask, version.ref, text) for text in TEXTS}
    assert len({str(golden[ref, TEXTS[0]]) for ref in (BASE, *sources)}) == 3, "the versions must differ"

    wrong: list[str] = []
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def call(seed: int) -> None:
        number = seed
        while not stop.is_set():
            text, number = TEXTS[number % len(TEXTS)], number + 1
            try:
                with pool.open(trained.spec, "live") as lm:
                    named = lm.version
                    found = ask(lm, text)
                    if lm.version != named or not same(found, golden[made_from[named], text]):
                        wrong.append(f"{named} answered {found} to {text}")
                    seen[named] += 1
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=call, args=(n,)) for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        move(store, pool, trained, list(sources.values()), made_from, seen)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(seen) > CAPACITY, "so many versions that idle ones were evicted"
    resident = pool._entries[trained.spec.model].loaded.resident
    assert len(resident.slots.loaded) <= (IN_USE if resident.slots._spare else CAPACITY)


def move(
    store: AdapterStore,
    pool: Pool,
    trained: Trained,
    sources: list[Version],
    made_from: dict[str, str],
    seen: Counter[str],
) -> None:
    """Publish and promote, promote the base, roll back, 40 times in all, each once the one before has answered."""
    tab = trained.spec.name
    for i in range(MOVES):
        if i % 4 == 3:
            store.roll_back(tab)
        elif i % 8 == 6:
            store.promote(tab, BASE)
        else:
            # Named before it is visible: a caller may answer with it at once.
            made_from[f"swap{i}@1"] = sources[i % 2].ref
            publish(store, trained, sources[i % 2], f"swap{i}")
            store.promote(tab, f"swap{i}@1")
            pool.warm(trained.spec)
        live = store.live(tab)
        wait_for(seen, live.ref if live else BASE)


def wait_for(seen: Counter[str], ref: str) -> None:
    before, pause = seen[ref], threading.Event()
    for _ in range(4000):
        if seen[ref] > before:
            return
        pause.wait(0.005)
    raise AssertionError(f"{ref} is live and nobody is answered by it")


def publish(store: AdapterStore, trained: Trained, source: Version, name: str) -> Version:
    return copy_of(source, store.root.parent, name)


def answer(pool: Pool, trained: Trained, ask: Ask, ref: str, text: str) -> Any:
    with pool.open(trained.spec, ref) as lm:
        return ask(lm, text)


def same(found: Any, wanted: Any) -> bool:
    return bool(found == pytest.approx(wanted, abs=ATOL)) if isinstance(wanted, dict) else close(found, wanted)


def close(found: Any, wanted: Any) -> bool:
    """Equal texts, or a label and its probability."""
    if isinstance(wanted, tuple):
        return bool(found[0] == wanted[0] and found[1] == pytest.approx(wanted[1], abs=ATOL))
    return bool(found == wanted)


SWAPS = 500


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_five_hundred_swaps_leave_nothing_behind(kind: str, request: pytest.FixtureRequest) -> None:
    """Each version is loaded, answers, and is evicted; of its tensors, and of what it left in caches, nothing stays."""
    trained: Trained = request.getfixturevalue(kind)
    loaded = trained.load()
    loaded.resident.slots._spare = 0  # of a GPU's memory there is some
    slots: list[weakref.ref[Slot]] = []
    counts: list[int] = []
    for i in range(SWAPS):
        version = replace((trained.first, trained.second)[i % 2], number=1000 + i)
        with loaded.resident.pin(version) as slot:
            assert slot is not None
            slots.append(weakref.ref(slot))
            if kind == "bert":
                loaded.labels.classify(TEXTS[i % 3], slot)
            elif i % 5 == 0:
                list(loaded.text.generate(TEXTS[i % 3] * 4, "", Sampling(max_new_tokens=2), slot, []))
            del slot
        if i in (SWAPS // 5, SWAPS - 1):
            counts.append(live_tensors())
    assert sum(slot() is not None for slot in slots) <= CAPACITY
    assert counts[1] <= counts[0] + 20, counts


def live_tensors() -> int:
    gc.collect()
    return sum(type(thing) is torch.Tensor for thing in gc.get_objects())
