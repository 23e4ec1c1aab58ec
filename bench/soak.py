"""Swaps, load and kills: every answer is that of the version it names, memory stays, nothing acknowledged is lost."""

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

from bench.history import History, same
from bench.tabs import Tab
from bench.versions import publish, republish
from errors import AdapterError
from store.adapters import BASE, LIVE, Version

SOURCES, LEAST = 10, 4
"""Versions that say different things: as many as are wanted, and at least. Each publish is of a copy of one of them."""
WILD = 0.1
"""The spread of their B matrices: such that a few words are enough to tell them apart."""
KEPT = 12
"""Versions that are asked for by name: more than a base keeps in memory, so that some are always on their way."""
SETTLED = 0.2
"""Of the swaps, before memory is looked at: buffers of every size are there then."""


def history(tab: Tab, answers: int, publishes: int, writers: int) -> list[dict[str, Any]]:
    """Ask from `writers` threads while versions are published, promoted, rolled back and evicted; one row."""
    sources, golden = _distinct(tab)
    record = History(golden)
    record.made_from |= {source.ref: source.ref for source in sources}
    load = _Load(tab, record, answers)
    people = [threading.Thread(target=load.person, args=(seed,)) for seed in range(writers)]
    started = time.perf_counter()
    for person in people:
        person.start()
    try:
        moves = _move(tab, record, sources, load, publishes)
    finally:
        load.enough.set()
        for person in people:
            person.join()
    faults = record.faults()
    return [{
        "what": f"{tab.kind}: {writers} writers of load", "answers": len(record.answers),
        "versions that answered": len({answer.version for answer in record.answers}), **moves,
        "errors": len(record.errors), "wrong": len(faults) - len(record.errors),
        "answers a second": round(len(record.answers) / (time.perf_counter() - started), 1),
        "the first": faults[0] if faults else "",
    }]  # fmt: skip


class _Load:
    """People who ask for the live version, for versions by name, and for the base."""

    def __init__(self, tab: Tab, record: History, answers: int) -> None:
        self._tab, self._record, self.answers = tab, record, answers
        self.named = [ref for ref in record.made_from if ref != BASE]
        self.enough = threading.Event()

    def person(self, seed: int) -> None:
        """Ask until it is enough."""
        dice = random.Random(seed)
        while not self.enough.is_set():
            asked = dice.choices([LIVE, dice.choice(self.named[-KEPT:]), BASE], [8, 2, 1])[0]
            text, began = dice.choice(self._tab.texts), time.monotonic()
            try:
                version, said = self._tab.ask(asked, text)
            except Exception as error:
                self._record.failed(asked, error)
            else:
                self._record.answered(asked, text, version, said, began)

    def wait_for(self, answers: int) -> None:
        """Return when so many calls have ended."""
        pause = threading.Event()
        while len(self._record.answers) + len(self._record.errors) < answers:
            pause.wait(0.002)


def _move(tab: Tab, record: History, sources: Sequence[Version], load: _Load, publishes: int) -> dict[str, int]:
    """Publish and promote, every fourth time also roll back, evict what may go; spread over what is asked."""
    store, name, dice = tab.site.adapters, tab.site.spec.name, random.Random(0)
    counts = {"publishes": 0, "roll backs": 0, "evictions": 0}
    for number in range(publishes):
        load.wait_for(load.answers * number // publishes)
        source, ref = sources[number % len(sources)], f"swap{number}@1"
        record.made_from[ref] = source.ref  # before anybody can see it
        republish(tab.site, source, f"swap{number}")
        _promote(tab, record, BASE if number % 10 == 9 else ref)
        load.named.append(ref)
        counts["publishes"] += 1
        if number % 4 == 3:
            with record.moving() as move:
                move.ref = store.roll_back(name)
            counts["roll backs"] += 1
        with suppress(AdapterError):  # it is in use
            tab.pool.release(dice.choice(load.named[-KEPT:]))
            counts["evictions"] += 1
    load.wait_for(load.answers)
    return counts


def _promote(tab: Tab, record: History, ref: str) -> None:
    with record.moving() as move:
        move.ref = ref
        tab.site.adapters.promote(tab.site.spec.name, ref)
    tab.pool.warm(tab.site.spec)


def _distinct(tab: Tab) -> tuple[list[Version], dict[tuple[str, str], Any]]:
    """Versions of which no two, and none and the base, say the same to any text; and what each says to each."""
    golden = {(BASE, text): tab.ask(BASE, text)[1] for text in tab.texts}
    found: list[Version] = []
    for version in publish(tab.site, [f"source{i}" for i in range(2 * SOURCES)], spread=WILD):
        answers = {text: tab.ask(version.ref, text)[1] for text in tab.texts}
        if not any(same(answers[text], said) for (_, text), said in golden.items()):
            found.append(version)
            golden |= {(version.ref, text): said for text, said in answers.items()}
        if len(found) == SOURCES:
            break
    if len(found) < LEAST:
        raise RuntimeError(f"Only {len(found)} versions can be told from each other.")
    return found, golden


def memory(tab: Tab, swaps: int) -> list[dict[str, Any]]:
    """Publish, promote and ask `swaps` times; what the process holds at the start and the end, and what a swap adds."""
    store, name = tab.site.adapters, tab.site.spec.name
    sources = publish(tab.site, [f"source{i}" for i in range(4)])
    held: list[float] = []
    for number in range(swaps):
        version = republish(tab.site, sources[number % len(sources)], "swap")
        store.promote(name, version.ref)
        named, _ = tab.ask(LIVE, tab.texts[number % len(tab.texts)])
        if named != version.ref:
            raise RuntimeError(f"{version.ref} is live and {named} answered.")
        with suppress(AdapterError):  # the one before may be rolled back to
            store.delete(f"swap@{version.number - 2}")
        gc.collect()
        held.append(resident_bytes())
    settled = held[int(SETTLED * len(held)) :]
    return [{"what": f"{tab.kind}: memory", "swaps": swaps, "settled MB": round(settled[0] / 1e6, 1),
             "last MB": round(settled[-1] / 1e6, 1), "kB a swap": round(slope(settled) / 1e3, 2)}]  # fmt: skip


def resident_bytes(pid: int | None = None) -> int:
    """What a process has in main memory now; this one, unless another is named."""
    pages = Path(f"/proc/{pid or os.getpid()}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def slope(figures: Sequence[float]) -> float:
    """By how much they grow from one to the next: the least-squares line through them."""
    middle, mean = (len(figures) - 1) / 2, sum(figures) / len(figures)
    above = sum((i - middle) * (figure - mean) for i, figure in enumerate(figures))
    return above / sum((i - middle) ** 2 for i in range(len(figures)))


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """`--soak MINUTES` of load on a running app, `--kill MINUTES` of kills (`bench/endurance.py`)."""
    from bench import endurance  # noqa: PLC0415 - it imports what is large, and this module is used where memory counts

    return endurance.measure(arguments)
