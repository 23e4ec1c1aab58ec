"""A version is published: how soon it answers, and who waits for it; beside PEFT's load_adapter and set_adapter.

    python -m bench swap                                            another version, and the others meanwhile
    python -m bench swap --history --answers 10000 --publishes 200  every answer is that of the version it names
    python -m bench swap --memory --swaps 500                       memory is flat

The clock starts when a version that lies on the disk is promoted, and stops with its first answer; the same question to
a copy of it that is in memory tells how much of that is the answer. PEFT is given the same folder, and asked twice.
"Others" ask the live version all the while, from threads of their own; of a text each piece's wait is told.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bench import soak
from bench.history import same
from bench.measure import alternate, ratio
from bench.people import percentile
from bench.tabs import KINDS, Tab, open_tab
from bench.versions import LABELS, publish, republish
from bench.worker import Worker
from models.chat_template import as_messages, encode
from models.tokenizer import load_tokenizer
from store.adapters import Version
from tasks import TASKS

SOURCES = 4
"""Versions that differ; each swap is to a copy of one of them, which nobody has loaded."""


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Measure what is asked for; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench swap")
    parser.add_argument("what", nargs="*", choices=[[], *KINDS], default=[], help="both, unless named")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--load", type=int, default=4, help="others who ask meanwhile")
    parser.add_argument("--asked", type=int, default=200, help="what they ask in a round, at least")
    parser.add_argument("--changes", type=int, default=8, help="versions that become live in such a round")
    parser.add_argument("--tokens", type=int, default=4, help="of an answer in words")
    parser.add_argument("--base", default="", help="a folder, in place of the usual bases")
    parser.add_argument("--history", action="store_true")
    parser.add_argument("--answers", type=int, default=10000, help="in words, a tenth of them")
    parser.add_argument("--publishes", type=int, default=200)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--swaps", type=int, default=500)
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for kind in options.what or list(KINDS):
        with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
            tab = open_tab(Path(folder), kind, options.base, options.tokens)
            if options.history:
                answers = options.answers if tab.labelled else options.answers // 10
                rows += soak.history(tab, answers, options.publishes, options.writers)
            elif options.memory:
                rows += soak.memory(tab, options.swaps)
            else:
                rows += Swaps(tab, options.tokens).rows(options.rounds)
                rows += Others(tab, options.load, options.asked, options.changes).rows(options.rounds)
    return rows


class Swaps:
    """One swap at a time, in an idle process."""

    def __init__(self, tab: Tab, tokens: int, comparable: bool = True) -> None:
        """`comparable`: whether both sides must say the same, as they do unless all weights are random."""
        self._tab, self._comparable = tab, comparable
        self._sources = publish(tab.site, [f"source{i}" for i in range(SOURCES)])
        self._tokens, self._number = tokens, 0
        self._found: dict[str, list[dict[str, Any]]] = {"stock": [], "graft": []}

    def rows(self, rounds: int) -> list[dict[str, Any]]:
        """Alternate, beside PEFT."""
        with Worker("bench.peers.stock_swap", self._job()) as peer:
            contenders = {"stock": lambda: self._once("stock", self._stock(peer)),
                          "graft": lambda: self._once("graft", self._graft())}  # fmt: skip
            alternate(contenders, 1)  # nothing is as slow as the first time
            self._found = {name: [] for name in contenders}
            seconds = alternate(contenders, rounds)
        if self._comparable and not all(same(*said) for said in self._said()):
            raise RuntimeError(f"The answers differ: {self._said()}")
        return [
            {
                "what": f"{self._tab.kind}: {'a new version' if name == 'graft' else 'load_adapter, set_adapter'}",
                "to its answer ms": _ms(seconds[name]),
                "an answer alone ms": _ms([one["alone"] for one in self._found[name]]),
                "so the swap ms": _ms([max(0.0, one["answered"] - one["alone"]) for one in self._found[name]]),
                "beside stock": str(ratio(seconds[name], seconds["stock"])) if name == "graft" else "",
            }
            for name in ("stock", "graft")
        ]

    def _job(self) -> dict[str, Any]:
        site, tokenizer = self._tab.site, load_tokenizer(self._tab.site.model)
        text = self._tab.texts[0]
        ids = tokenizer(text)["input_ids"] if self._tab.labelled else (
            encode(tokenizer, as_messages(text, site.spec.prompt), answer_next=True)[0])  # fmt: skip
        return {"base": str(site.model.path), "adapter": str(self._sources[0].path), "ids": ids, "tokens": self._tokens,
                "kind": TASKS[site.spec.task].peft_type, "labels": LABELS if self._tab.labelled else []}  # fmt: skip

    def _once(self, name: str, found: dict[str, Any]) -> float:
        self._found[name].append(found)
        return float(found["answered"])

    def _source(self, name: str) -> Any:  # noqa: ANN401 - a Version
        """The same one for both in each round, and never that of the round before."""
        return self._sources[len(self._found[name]) % SOURCES]

    def _stock(self, peer: Worker) -> dict[str, Any]:
        return dict(peer.ask(folder=str(self._source("stock").path)))

    def _graft(self) -> dict[str, Any]:
        tab, self._number = self._tab, self._number + 1
        source, number = self._source("graft"), self._number
        version, ready = (republish(tab.site, source, f"{name}{number}") for name in ("swap", "ready"))
        answered, said = self._promoted(version)
        tab.pool.check(tab.site.spec, ready.ref)
        return {"answered": answered, "alone": self._promoted(ready)[0], "said": said}

    def _promoted(self, version: Version) -> tuple[float, Any]:
        """Seconds from promoting a version to its first answer, and that."""
        tab, started = self._tab, time.perf_counter()
        tab.site.adapters.promote(tab.site.spec.name, version.ref)
        named, said = tab.ask("live", tab.texts[0])
        seconds = time.perf_counter() - started
        if named != version.ref:
            raise RuntimeError(f"{version.ref} is live and {named} answered.")
        return seconds, said

    def _said(self) -> list[tuple[Any, Any]]:
        ours, theirs = ([one["said"] for one in self._found[name]] for name in ("graft", "stock"))
        return list(zip(ours, theirs, strict=True))


@dataclass
class Others:
    """People who ask all the while, in a quiet time and while versions are promoted one after the other."""

    tab: Tab
    load: int
    asked: int
    changes: int

    def rows(self, rounds: int) -> list[dict[str, Any]]:
        """Alternate; the 99th percentile of what they wait, in a quiet time and while versions change."""
        found: dict[str, list[float]] = {"quiet": [], "swaps": []}
        self.swaps = 0

        def once(name: str) -> Callable[[], float]:
            def measure() -> float:
                waits = self._waits(name == "swaps")
                found[name] += waits
                return percentile(waits, 0.99)

            return measure

        last = alternate({name: once(name) for name in found}, rounds)
        return [
            {
                "what": f"{self.tab.kind}: others, {'quiet' if name == 'quiet' else f'{self.swaps} swaps'}",
                "median ms": round(1000 * statistics.median(found[name]), 1),
                "p99 ms": _ms(last[name]),
                "p99 beside quiet": str(ratio(last[name], last["quiet"])) if name == "swaps" else "",
            }
            for name in found
        ]

    def _waits(self, swapping: bool) -> list[float]:
        """Seconds that each of them waited, while the owner swaps until they have asked enough."""
        sources = self.tab.site.adapters.versions(self.tab.site.spec.name)[:SOURCES]
        copies = [republish(self.tab.site, sources[i % len(sources)], "other") for i in range(self.changes * swapping)]
        waits: list[float] = []
        stop = threading.Event()
        people = [threading.Thread(target=self._person, args=(n, waits, stop)) for n in range(self.load)]
        for person in people:
            person.start()
        try:
            self._watch(copies, waits)
        finally:
            stop.set()
            for person in people:
                person.join()
        return waits

    def _watch(self, copies: Sequence[Any], waits: Sequence[float]) -> None:
        """Promote the copies one by one, spread over what is asked; returns when enough was."""
        pace, pause = max(1, self.asked // max(1, len(copies))), threading.Event()
        for number, version in enumerate(copies):
            while len(waits) < number * pace:
                pause.wait(0.002)
            self.tab.site.adapters.promote(self.tab.site.spec.name, version.ref)
            self.tab.pool.warm(self.tab.site.spec)
            self.swaps += 1
        while len(waits) < self.asked:
            pause.wait(0.002)

    def _person(self, place: int, waits: list[float], stop: threading.Event) -> None:
        texts, numbers = self.tab.texts, count(place, self.load)
        while not stop.is_set():
            number = next(numbers)
            # Nobody's question was asked before: what a version remembers of a prompt would be gone with each swap.
            waits += self.tab.waits("live", f"{number}. {texts[number % len(texts)]}")


def _ms(seconds: Sequence[float]) -> float:
    return round(1000 * statistics.median(seconds), 1)
