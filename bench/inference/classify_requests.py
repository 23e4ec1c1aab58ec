"""Classification for many clients at once, through HTTP and inside one process, beside stock Gradio and a pipeline.

    python -m bench classify --rounds 5

The same base, version and texts, the example tickets. Each client asks one text after the other, inside as a thread.
The peer's version is merged into its base, which makes it faster.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gradio_client import Client

from bench.bench_tab import LABELS, TOLERANCE, BenchTab, open_tab, publish
from bench.measure import Figures, Row, call_together, compare_answers, parse
from bench.servers import serve_app, serve_stock, start_peer
from settings import REPOSITORY, Settings
from store.adapters import LIVE

ROUNDED = 0.05
"""Difference of two probabilities in bfloat16, where of two labels that are as likely either may win."""
Scored = tuple[str, float]
"""A label and its probability."""
Measured = Callable[[], tuple[float, list[Scored]]]


def run(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Compare the answers, then the speed."""
    options = parse(__doc__, arguments, rounds=5, clients=32, asked=4, batch=32, base="")
    tab = open_tab(folder, "text-classification", options.base)
    [version] = publish(tab, ["v"])
    tab.adapters.promote(tab.spec.name, version.ref)
    texts, clients = _tickets(options.clients * options.asked), options.clients
    job = {"classifier": str(tab.model.path), "adapter": str(version.path), "labels": LABELS}
    with start_peer("classify", **job) as ask:
        threads = [partial(_ask_tab, tab)] * clients
        inside: dict[str, Measured] = {
            "inside: pipeline, one by one": partial(_ask_pipeline, ask, texts, 0),
            f"inside: pipeline, lists of {options.batch}": partial(_ask_pipeline, ask, texts, options.batch),
            "inside: graft, one client": partial(_share, texts, threads[:1]),
            f"inside: graft, {clients} clients": partial(_share, texts, threads),
        }
        rows = _compare(inside, options.rounds)
    with serve_stock("classify", job) as stock, serve_app(tab.settings.home, {tab.spec.name: tab.spec.model}) as app:
        theirs = [partial(_ask_page, stock.client(), api_name="/answer") for _ in range(clients)]
        ours = [partial(_ask_page, app.client(), adapter=LIVE, api_name="/classification") for _ in range(clients)]
        http: dict[str, Measured] = {
            f"through HTTP: Gradio and pipeline, {clients} clients": partial(_share, texts, theirs),
            "through HTTP: graft, one client": partial(_share, texts, ours[:1]),
            f"through HTTP: graft, {clients} clients": partial(_share, texts, ours),
        }
        return rows + _compare(http, options.rounds)


def _tickets(count: int) -> list[str]:
    with (REPOSITORY / "examples" / "tickets.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return [texts[i % len(texts)] for i in range(count)]


def _compare(asks: Mapping[str, Measured], rounds: int) -> list[Row]:
    stock = next(iter(asks))
    peers = {name: stock for name in asks if name != stock}

    def speed(seconds: float, answers: Sequence[Scored]) -> Figures:
        return {"answers a second": len(answers) / seconds}

    return compare_answers(asks, peers, check_labels, speed, rounds)[0]


def check_labels(name: str, ours: Sequence[Scored], theirs: Sequence[Scored]) -> str:
    """Count the answers, which must all be the peer's; raises `RuntimeError` where one is not."""
    exact = Settings.from_env().precision == "auto"
    for (label, score), (other, probability) in zip(theirs, ours, strict=True):
        if abs(probability - score) > (TOLERANCE if exact else ROUNDED) or (exact and other != label):
            raise RuntimeError(f"{name} says {other} ({probability}), and the pipeline {label} ({score}).")
    return f"{len(ours)} of {len(theirs)}"


def _share(texts: Sequence[str], asks: Sequence[Callable[[str], Scored]]) -> tuple[float, list[Scored]]:
    """Ask all texts, each client one after the other; returns the seconds, and the answers in the texts' order."""

    def client(number: int) -> list[Scored]:
        return [asks[number](text) for text in texts[number :: len(asks)]]

    seconds, answers = call_together([partial(client, number) for number in range(len(asks))])
    return seconds, [answers[i % len(asks)][i // len(asks)] for i in range(len(texts))]


def _ask_pipeline(ask: Callable[..., Any], texts: Sequence[str], batch: int) -> tuple[float, list[Scored]]:
    found = ask(texts=list(texts), batch=batch)
    return found["seconds"], [(label, score) for label, score in found["answers"]]


def _ask_tab(tab: BenchTab, text: str) -> Scored:
    labels: dict[str, float] = tab.ask(LIVE, text)[1]
    return max(labels.items(), key=lambda scored: scored[1])


def _ask_page(client: Client, text: str, **named: str) -> Scored:
    found: Any = client.predict(text, **named)
    answer = found[0] if isinstance(found, tuple) else found
    return answer["label"], answer["confidences"][0]["confidence"]
