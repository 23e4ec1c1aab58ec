"""A new version into a loaded base: how soon it answers, and who waits for it, beside PEFT's `load_adapter`.

    python -m bench swap                   both kinds of tabs
    python -m bench swap classification    one of them

The clock starts when a version on the disk, which nobody has loaded, is promoted, and stops with its first answer; the
same question to a copy that is in memory tells how much of that is the answer. PEFT is given the same folder, and asked
twice. Others ask the live version all the while, from threads of their own; each piece of a text is one wait.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from bench.bench_tab import LABELS, QUESTIONS, BenchTab, open_tab, publish, republish, same_answer
from bench.measure import Figures, Row, alternate, call_together, parse, summarize
from bench.servers import start_peer
from store.adapters import LIVE, Version

KINDS = {"classification": "text-classification", "generation": "causal-lm"}
SOURCES = 4
"""Versions that differ; each swap is to a copy of one of them."""


def run(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Measure the swap itself, then those who ask meanwhile."""
    options = parse(__doc__, arguments, list(KINDS), rounds=9, clients=4, asked=200, swaps=8, tokens=4, base="")
    rows: list[Row] = []
    for kind in options.parts:
        tab = open_tab(folder / kind, KINDS[kind], options.base)
        rows += _compare_swaps(tab, options.tokens, options.rounds)
        rows += _compare_waits(tab, options.clients, options.asked, options.swaps, 4 * options.tokens, options.rounds)
    return rows


def _compare_swaps(tab: BenchTab, tokens: int, rounds: int) -> list[Row]:
    """Swap in an idle process; both sides must answer the same."""
    sources = publish(tab, [f"source{i}" for i in range(SOURCES)])
    labels = LABELS if tab.labelled else []
    job = {"base": str(tab.model.path), "adapter": str(sources[0].path), "labels": labels, "tokens": tokens}
    answers: dict[str, Any] = {}

    def measure(side: str, number: int) -> Figures:
        source = sources[number % SOURCES]  # the same for both in a round, and not that of the round before
        found = ask(folder=str(source.path)) if side == "stock" else _swap(tab, source, tokens)
        if not same_answer(found["said"], answers.setdefault(source.ref, found["said"])):
            raise RuntimeError(f"The answers differ: {found['said']} and {answers[source.ref]}")
        answered, alone = 1000 * found["answered"], 1000 * found["alone"]
        return {"to its answer, ms": answered, "the answer alone, ms": alone, "the swap, ms": max(0, answered - alone)}

    stock, graft = f"{tab.spec.name}: load_adapter, set_adapter", f"{tab.spec.name}: a new version"
    contenders = {stock: partial(measure, "stock"), graft: partial(measure, "graft")}
    with start_peer("swap", **job, ids=tab.encode(QUESTIONS[0])) as ask:
        alternate(contenders, 1)  # nothing is as slow as the first time
        return summarize(alternate(contenders, rounds), {graft: stock})


def _swap(tab: BenchTab, source: Version, tokens: int) -> dict[str, Any]:
    new, loaded = republish(tab.adapters, source, "new"), republish(tab.adapters, source, "loaded")
    answered, said = _promote_and_ask(tab, new, tokens)
    tab.pool.check(tab.spec, loaded.ref)
    return {"answered": answered, "alone": _promote_and_ask(tab, loaded, tokens)[0], "said": said}


def _promote_and_ask(tab: BenchTab, version: Version, tokens: int) -> tuple[float, Any]:
    """Return the seconds from promoting a version to its first answer, and that."""
    started = time.perf_counter()
    tab.adapters.promote(tab.spec.name, version.ref)
    ref, said = tab.ask(LIVE, QUESTIONS[0], tokens)
    seconds = time.perf_counter() - started
    if ref != version.ref:
        raise RuntimeError(f"{version.ref} is live and {ref} answered.")
    return seconds, said


def _compare_waits(tab: BenchTab, clients: int, asked: int, swaps: int, tokens: int, rounds: int) -> list[Row]:
    """Compare the waits of clients who ask the live version while it changes with those of a quiet time."""

    def measure(swaps: int, _: int) -> Figures:
        sources = tab.adapters.versions(tab.spec.name)[:SOURCES]
        copies = [republish(tab.adapters, sources[i % len(sources)], "other") for i in range(swaps)]
        waits: list[float] = []

        def ask(numbers: Iterator[int]) -> None:
            while len(waits) < asked:
                number = next(numbers)
                # Nobody asked this before: what a version remembers of a prompt would be gone with each swap.
                waits.extend(tab.waits(LIVE, f"{number}. {QUESTIONS[number % len(QUESTIONS)]}", tokens))

        def promote() -> None:
            for number, version in enumerate(copies):
                while len(waits) < number * asked // swaps:
                    time.sleep(0.002)
                tab.adapters.promote(tab.spec.name, version.ref)
                tab.pool.warm(tab.spec)

        calls: list[Callable[[], None]] = [partial(ask, count(place, clients)) for place in range(clients)]
        call_together([promote, *calls])
        slowest = float(np.percentile(waits, 99, method="inverted_cdf"))
        return {"p99, ms": 1000 * slowest, "median, ms": 1000 * statistics.median(waits)}

    quiet, busy = f"{tab.spec.name}: others, quiet", f"{tab.spec.name}: others, {swaps} swaps"
    contenders = {quiet: partial(measure, 0), busy: partial(measure, swaps)}
    return summarize(alternate(contenders, rounds), {busy: quiet})
