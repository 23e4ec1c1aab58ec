"""The whole page with its three tabs: seconds until it can be used, and resident memory with eight versions.

    python -m bench start --rounds 5       beside a bare Gradio page
    python -m bench memory --rounds 3      beside a page with three pipelines, each with one version at most

`start` counts from the start of the process, with bases on the disk and nothing kept of an earlier process but the
system's cache of files; the first answer is the first tab's. `memory` is that of the page's process when every version
has answered once, in main memory as the kernel counts it; bases have the same precision on both sides.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from bench.bench_tab import LABELS, MINILM, QUESTIONS, SMOLLM, open_tab, publish
from bench.measure import Figures, Row, alternate, link_models, parse, resident_bytes, summarize
from bench.servers import serve_app, serve_stock

TEXT = QUESTIONS[0]
VERSIONS = {"classification": 3, "summarization": 3, "generation": 2}
"""Versions of each tab, when memory is measured."""


def _bases(options: argparse.Namespace) -> dict[str, str]:
    return {tab: options.classifier if tab == "classification" else options.writer for tab in VERSIONS}


def start(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Compare the seconds; `--warm` rounds before bring files into the system's cache."""
    options = parse(__doc__, arguments, rounds=5, warm=1, classifier=MINILM, writer=SMOLLM)
    home = folder / "home"
    link_models(home)
    answered: list[Figures] = []

    def bare(_: int) -> Figures:
        with serve_stock("bare", {}) as server:
            return {"seconds": server.usable}

    def graft(_: int) -> Figures:
        with serve_app(home, _bases(options)) as server:
            server.client().predict(TEXT, "praise, complaint", adapter="base", api_name="/classification")
            answered.append({"seconds": time.perf_counter() - server.started})
            return {"seconds": server.usable}

    contenders = {"a bare Gradio page": bare, "graft: page": graft}
    alternate(contenders, options.warm)
    answered.clear()
    measured = alternate(contenders, options.rounds)
    measured["graft: first answer"] = answered
    return summarize(measured, dict.fromkeys(("graft: page", "graft: first answer"), "a bare Gradio page"))


def memory(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Compare the megabytes; answers have at least 16 tokens, the least that the page allows."""
    options = parse(__doc__, arguments, rounds=3, tokens=16, classifier=MINILM, writer=SMOLLM)
    bases = _bases(options)
    tasks = {name: "text-classification" if name == "classification" else "causal-lm" for name in bases}
    tabs = {name: open_tab(folder, tasks[name], base, name=name) for name, base in bases.items()}
    versions = {name: publish(tab, [f"{name}-{i}" for i in range(VERSIONS[name])]) for name, tab in tabs.items()}
    job = {"classifier": str(tabs["classification"].model.path), "writer": str(tabs["generation"].model.path)}
    job |= {"adapter": str(versions["classification"][0].path)}

    def stock(_: int) -> Figures:
        with serve_stock("three", {**job, "labels": LABELS, "tokens": options.tokens}) as server:
            client = server.client()
            for endpoint in ("/classify", "/summarize", "/generate"):
                client.predict(TEXT, api_name=endpoint)
            return {"MB": resident_bytes(server.pid) / 1e6}

    def graft(_: int) -> Figures:
        with serve_app(folder / "home", bases) as server:
            client = server.client()
            for name, tab in tabs.items():
                length = {} if tab.labelled else {"max_new_tokens": options.tokens}
                for version in versions[name]:
                    _, by = client.predict(TEXT, adapter=version.ref, api_name=f"/{name}", **length)
                    if by["version"] != version.ref:
                        raise RuntimeError(f"{version.ref} was asked and {by['version']} answered.")
            return {"MB": resident_bytes(server.pid) / 1e6}

    names = "three pipelines", f"three tabs, {sum(VERSIONS.values())} versions"
    contenders = {names[0]: stock, names[1]: graft}
    return summarize(alternate(contenders, options.rounds), {names[1]: names[0]})
