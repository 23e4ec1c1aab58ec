"""Callers of a tab under whose calls its live version changes, and a check that each answer is its version's."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from serving.pool import Pool
from store.adapters import BASE, LIVE
from tasks import TabSpec
from tests.helpers.answers import ask, same
from tests.helpers.waiting import until

TEXTS = ["where is my parcel", "thank you, well done", "the app crashes on start"]


class Load:
    """Threads that ask a tab for its live version, and now and then for another by name, while versions change.

    An answer is right when it equals the one that its version gave alone and beforehand, and when its version is the
    one asked for, or one that was live at some moment of the call.
    """

    def __init__(self, pool: Pool, spec: TabSpec) -> None:
        self.pool, self.spec, self.store = pool, spec, pool.adapters
        self.golden: dict[tuple[str, str], Any] = {}
        """(source, text) -> the answer of every version with the files of that source, and its base."""
        self.sources: dict[str, str] = {}
        """Version -> source."""
        self.live, self.settled = [BASE], 1
        """Versions that were made live, the newest last, and the number of changes that are done."""
        self.calls: list[tuple[str, str, int, int]] = []
        """(asked, answered, `settled` at the beginning, length of `live` at the end) of calls for a version."""
        self.wrong: list[str] = []
        self.seen: Counter[str] = Counter()

    def remember(self, *refs: str) -> None:
        """Ask versions, each alone, for their answers, which must differ."""
        for ref in refs:
            self.sources[ref] = ref
            for text in TEXTS:
                with self.pool.open(self.spec, ref) as lm:
                    self.golden[ref, text] = ask(lm, text), lm.base
        assert len({str(self.golden[ref, TEXTS[0]][0]) for ref in refs}) == len(refs)

    def call(self, seed: int, stop: threading.Event) -> None:
        dice = random.Random(seed)
        while not stop.is_set():
            text, asked, begun = dice.choice(TEXTS), LIVE, self.settled
            if dice.random() < 0.2:
                asked = dice.choice([*self.sources])
            try:
                with self.pool.open(self.spec, asked) as lm:
                    answer, version = (ask(lm, text), lm.base), lm.version
            except Exception as error:
                self.wrong.append(repr(error))
                continue
            wanted = self.golden[self.sources[version], text]
            if not same(answer[0], wanted[0]) or answer[1] != wanted[1]:
                self.wrong.append(f"{version} answered {answer} to {text}")
            if not lm.notes:  # else its base was loading, and the version before went on answering
                self.calls.append((asked, version, begun, len(self.live)))
            self.seen[version] += 1

    @contextmanager
    def running(self, callers: int) -> Iterator[None]:
        """Ask until the block ends; fails for any wrong answer."""
        stop = threading.Event()
        threads = [threading.Thread(target=self.call, args=(n, stop)) for n in range(callers)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert self.wrong == []
        for asked, version, begun, ended in self.calls:
            allowed = self.live[begun - 1 : ended] if asked == LIVE else [asked]
            assert version in allowed, f"{version} answered for {asked}"

    def promote(self, ref: str) -> None:
        self.change(ref, lambda: self.store.promote(self.spec.name, ref))

    def roll_back(self) -> None:
        self.change(str(self.store.rollback_target(self.spec.name)), lambda: self.store.roll_back(self.spec.name))

    def change(self, ref: str, change: Callable[[], object]) -> None:
        """Make a version live, and wait until it has answered once more."""
        self.live.append(ref)  # a caller may answer with it at once
        change()
        self.settled = len(self.live)
        self.pool.warm(self.spec)
        before = self.seen[ref]
        until(lambda: self.seen[ref] > before)
