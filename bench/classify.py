"""Classification for many people at once, through HTTP and inside, beside stock Gradio and a pipeline.

    python -m bench classify                     32 people at once: answers a second
    python -m bench classify --beside-training   what a person waits while a run trains beside the page

The same base, version and texts. Through HTTP each person has a connection of their own (gradio_client) and asks one
text after the other; inside, each is a thread. The peer's version is merged into its base, which makes it faster.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gradio_client import Client

from bench.beside import beside_training
from bench.history import TOLERANCE
from bench.measure import alternate, ratio
from bench.people import together
from bench.servers import serve_app, serve_stock
from bench.tabs import Tab, open_tab
from bench.versions import LABELS, publish
from bench.worker import Worker
from settings import REPOSITORY, Settings
from store.adapters import Version

TAB = "classification"
ROUNDED = 0.05
"""What a probability may differ by in bfloat16, where of two labels that are as likely either may win."""
Said = tuple[str, float]
"""A label and its probability."""


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Compare the answers, then alternate; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench classify")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, default=32)
    parser.add_argument("--asked", type=int, default=4, help="by each of them in a round")
    parser.add_argument("--batch", type=int, default=32, help="of a pipeline that is given a list")
    parser.add_argument("--base", default="", help="a folder, in place of the usual base")
    parser.add_argument("--beside-training", action="store_true")
    parser.add_argument("--calls", type=int, default=100, help="in a round, with --beside-training")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        tab = open_tab(Path(folder), TAB, options.base)
        [version] = publish(tab.site, ["v"])
        tab.site.adapters.promote(TAB, version.ref)
        texts = questions(options.people * options.asked)
        if options.beside_training:
            return beside_training(tab.site, texts, options.calls, options.rounds)
        return _inside(tab, version, texts, options) + _over_http(tab, version, texts, options)


def questions(count: int) -> list[str]:
    """Texts of the example tickets, over and over."""
    with (REPOSITORY / "examples" / "tickets.csv").open(newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    return [texts[i % len(texts)] for i in range(count)]


def _job(tab: Tab, version: Version) -> dict[str, Any]:
    return {"classifier": str(tab.site.model.path), "adapter": str(version.path), "labels": LABELS}


def _inside(tab: Tab, version: Version, texts: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    def graft(people: int) -> tuple[float, list[Said]]:
        return _shared(texts, people, [lambda text: _top(tab.ask("live", text)[1])] * people)

    with Worker("bench.peers.stock_classify", _job(tab, version)) as peer:

        def stock(batch: int) -> tuple[float, list[Said]]:
            found = peer.ask(texts=list(texts), batch=batch)
            return found["seconds"], [(label, score) for label, score in found["answers"]]

        return _compare("inside", options.rounds, {
            "pipeline, one by one": partial(stock, 0),
            f"pipeline, a list in batches of {options.batch}": partial(stock, options.batch),
            "graft, one person": partial(graft, 1),
            f"graft, {options.people} people": partial(graft, options.people),
        })  # fmt: skip


def _over_http(tab: Tab, version: Version, texts: Sequence[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    people = options.people
    with (
        serve_stock("classify", _job(tab, version)) as stock,
        serve_app(tab.site, [TAB], {TAB: tab.site.spec.model}) as app,
    ):
        theirs = [partial(_ask_stock, stock.client()) for _ in range(people)]
        ours = [partial(_ask_app, app.client()) for _ in range(people)]
        return _compare("through HTTP", options.rounds, {
            f"Gradio and pipeline, {people} people": lambda: _shared(texts, people, theirs),
            "graft, one person": lambda: _shared(texts, 1, ours),
            f"graft, {people} people": lambda: _shared(texts, people, ours),
        })  # fmt: skip


def _compare(
    how: str, rounds: int, contenders: Mapping[str, Callable[[], tuple[float, list[Said]]]]
) -> list[dict[str, Any]]:
    """The answers first, which warms all of them up; then answers a second, beside the first."""
    first, *others = contenders
    golden = contenders[first]()[1]
    for name in others:
        check(name, golden, contenders[name]()[1])
    speeds = alternate({name: partial(_speed, ask) for name, ask in contenders.items()}, rounds)
    return [
        {
            "what": f"{how}: {name}",
            "answers a second": round(statistics.median(speeds[name]), 1),
            "beside stock": str(ratio(speeds[name], speeds[first])) if name != first else "",
        }
        for name in contenders
    ]


def check(name: str, golden: Sequence[Said], answers: Sequence[Said]) -> None:
    """Raise `RuntimeError` where an answer is another than the peer's."""
    for (label, score), (said, probability) in zip(golden, answers, strict=True):
        exact = Settings.from_env().precision == "auto"
        if abs(probability - score) > (TOLERANCE if exact else ROUNDED) or (exact and said != label):
            raise RuntimeError(f"{name} says {said} ({probability}), and the pipeline {label} ({score}).")


def _speed(ask: Callable[[], tuple[float, list[Said]]]) -> float:
    seconds, answers = ask()
    return len(answers) / seconds


def _shared(texts: Sequence[str], people: int, ask: Sequence[Callable[[str], Said]]) -> tuple[float, list[Said]]:
    """All texts asked by so many people, each of them one after the other; the answers in order."""

    def person(number: int) -> list[Said]:
        return [ask[number](text) for text in texts[number::people]]

    seconds, answers = together([partial(person, number) for number in range(people)])
    return seconds, [answers[i % people][i // people] for i in range(len(texts))]


def _top(labels: Mapping[str, float]) -> Said:
    return max(labels.items(), key=lambda one: one[1])


def _ask_app(client: Client, text: str) -> Said:
    answer, _ = client.predict(text, adapter="live", api_name=f"/{TAB}")
    return answer["label"], answer["confidences"][0]["confidence"]


def _ask_stock(client: Client, text: str) -> Said:
    answer = client.predict(text, api_name="/answer")
    return answer["label"], answer["confidences"][0]["confidence"]
