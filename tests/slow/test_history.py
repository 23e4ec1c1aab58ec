"""Answers while versions are published, promoted, rolled back and evicted: each is that of the version it names."""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bench.bench_tab import QUESTIONS, BenchTab, open_tab, publish, republish, same_answer
from bench.measure import resident_bytes
from errors import AdapterError
from store.adapters import BASE, LIVE, Version
from tests.helpers import tiny
from tests.helpers.history import History
from tests.slow import size

ANSWERS, PUBLISHES = int(size("HISTORY_ANSWERS", 120)), int(size("HISTORY_PUBLISHES", 16))
SWAPS = int(size("HISTORY_SWAPS", 10))
CLIENTS, TEXTS = 8, QUESTIONS[:4]
SOURCES, LEAST = 10, 4
"""Versions with different answers: as many as wanted, and at least; every other version is a copy of one of them."""
WILD = 0.1
"""Spread of their B matrices: a few tokens are enough to tell them apart."""
NAMED = 12
"""Versions that are asked for by name: more than a base keeps in memory, so that some are always being loaded."""
GOLDEN = {("base", "t"): "zero", ("a@1", "t"): "one", ("b@1", "t"): {"x": 0.25, "y": 0.75}}


@pytest.fixture(params=["text-classification", "causal-lm"])
def tab(request: pytest.FixtureRequest, tmp_path: Path) -> BenchTab:
    family = "bert" if request.param == "text-classification" else "llama"
    real = os.environ.get("HISTORY_BASES") == "real"
    return open_tab(tmp_path, request.param, "" if real else str(tiny.make(family, tmp_path / family)))


class Load:
    """Clients who ask for the live version, for versions by name, and for the base."""

    def __init__(self, tab: BenchTab, history: History) -> None:
        self.tab, self.history = tab, history
        self.named = [ref for ref in history.made_from if ref != BASE]
        self.enough = threading.Event()

    def ask(self, seed: int) -> None:
        dice = random.Random(seed)
        while not self.enough.is_set():
            asked = dice.choices([LIVE, dice.choice(self.named[-NAMED:]), BASE], [8, 2, 1])[0]
            text, began = dice.choice(TEXTS), time.monotonic()
            try:
                version, said = self.tab.ask(asked, text)
            except Exception as error:
                self.history.failed(asked, error)
            else:
                self.history.answered(asked, text, version, said, began)

    def wait_for(self, calls: int) -> None:
        while len(self.history.calls) + len(self.history.errors) < calls:
            time.sleep(0.002)

    def change_versions(self, sources: Sequence[Version]) -> int:
        """Publish and promote, roll back every fourth time, evict; spread over the calls; returns the evictions."""
        store, name, dice, evictions = self.tab.adapters, self.tab.spec.name, random.Random(0), 0
        for number in range(PUBLISHES):
            self.wait_for(ANSWERS * number // PUBLISHES)
            source, ref = sources[number % len(sources)], f"swap{number}@1"
            self.history.made_from[ref] = source.ref  # before anybody can see it
            republish(store, source, f"swap{number}")
            with self.history.changing() as change:
                change.ref = BASE if number % 10 == 9 else ref
                store.promote(name, change.ref)
            self.tab.pool.warm(self.tab.spec)
            self.named.append(ref)
            if number % 4 == 3:
                with self.history.changing() as change:
                    change.ref = store.roll_back(name)
            with suppress(AdapterError):  # it is in use
                self.tab.pool.release(dice.choice(self.named[-NAMED:]))
                evictions += 1
        self.wait_for(ANSWERS)
        return evictions


def distinct(tab: BenchTab) -> tuple[list[Version], dict[tuple[str, str], Any]]:
    """Versions of which no two, nor one and the base, give the same answer to any text; and all their answers."""
    golden = {(BASE, text): tab.ask(BASE, text)[1] for text in TEXTS}
    found: list[Version] = []
    for version in publish(tab, [f"source{i}" for i in range(2 * SOURCES)], spread=WILD):
        answers = {text: tab.ask(version.ref, text)[1] for text in TEXTS}
        if not any(same_answer(answers[text], said) for (_, text), said in golden.items()):
            found.append(version)
            golden |= {(version.ref, text): said for text, said in answers.items()}
    assert len(found) >= LEAST
    return found[:SOURCES], golden


@pytest.mark.slow
def test_each_answer_under_load_is_that_of_the_version_it_names(tab: BenchTab) -> None:
    sources, golden = distinct(tab)
    history = History(golden)
    history.made_from |= {source.ref: source.ref for source in sources}
    load = Load(tab, history)
    threads = [threading.Thread(target=load.ask, args=(seed,)) for seed in range(CLIENTS)]
    for thread in threads:
        thread.start()
    try:
        evictions = load.change_versions(sources)
    finally:
        load.enough.set()
        for thread in threads:
            thread.join()
    versions = {call.version for call in history.calls}
    print(f"{len(history.calls)} answers of {len(versions)} versions, {PUBLISHES} publishes, {evictions} evictions")
    assert history.faults() == []
    assert len(history.calls) >= ANSWERS and len(versions) > 12


@pytest.mark.slow
def test_memory_stays_flat_while_versions_are_swapped(tab: BenchTab) -> None:
    store, name = tab.adapters, tab.spec.name
    sources = publish(tab, [f"source{i}" for i in range(4)])
    held: list[int] = []
    for number in range(SWAPS):
        version = republish(store, sources[number % len(sources)], "swap")
        store.promote(name, version.ref)
        assert tab.ask(LIVE, TEXTS[number % len(TEXTS)])[0] == version.ref
        with suppress(AdapterError):  # the one before may be rolled back to
            store.delete(f"swap@{version.number - 2}")
        gc.collect()
        held.append(resident_bytes())
    settled = held[len(held) // 5]  # buffers of every size are there then
    print(f"{SWAPS} swaps: {settled / 1e6:.1f} MB settled, {held[-1] / 1e6:.1f} MB at the end")
    assert held[-1] < 1.05 * settled


def recorded(*refs: str) -> History:
    history = History(GOLDEN)
    history.made_from |= {"a@1": "a@1", "copy@7": "a@1", "b@1": "b@1"}
    for ref in refs:
        with history.changing() as change:
            change.ref = ref
    return history


@pytest.mark.parametrize(
    ("live", "asked", "version", "said", "fault"),
    [
        ([], "live", "base", "zero", ""),
        (["a@1", "b@1"], "live", "b@1", {"x": 0.25004, "y": 0.74996}, ""),
        (["a@1", "b@1"], "a@1", "a@1", "one", ""),
        (["copy@7"], "live", "copy@7", "one", ""),
        (["a@1", "b@1"], "live", "a@1", "one", "a@1 answered as the live version and was not live."),
        ([], "b@1", "a@1", "one", "b@1 was asked and a@1 answered."),
        (["a@1"], "live", "a@1", "zero", "a@1 answered 'zero' to 't', as base does."),
        (["b@1"], "live", "b@1", {"x": 0.26, "y": 0.74}, "b@1 answered {'x': 0.26, 'y': 0.74} to 't', as none does."),
    ],
)
def test_the_checker_holds_an_answer_to_the_version_it_names(
    live: list[str], asked: str, version: str, said: object, fault: str
) -> None:
    history = recorded(*live)
    history.answered(asked, "t", version, said, time.monotonic())
    assert history.faults() == ([fault] if fault else [])


def test_the_checker_lets_a_call_during_a_change_name_either_version() -> None:
    history = recorded("a@1")
    began = time.monotonic()
    with history.changing() as change:
        change.ref = "b@1"
        history.answered("live", "t", "a@1", "one", began)
    history.answered("live", "t", "a@1", "one", began)
    history.answered("live", "t", "b@1", GOLDEN["b@1", "t"], began)
    assert history.faults() == []
    history.failed("live", ValueError("no"))
    assert history.faults() == ["live: ValueError('no')"]
