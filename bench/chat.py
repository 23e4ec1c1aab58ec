"""Conversations through HTTP: one person, and eight at once, beside stock Gradio and `generate`.

    python -m bench chat --rounds 5

Tokens a second over all of them, from the questions to the end of the last answer; greedy, so that both sides write the
same words. Each person has a connection of their own (gradio_client). llama.cpp is measured where its Python package
is installed and a GGUF file is given.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gradio_client import Client

from bench.measure import alternate, ratio
from bench.mixed import LEAST_SAME, QUESTIONS, alike, counter
from bench.people import together
from bench.servers import serve_app, serve_stock
from bench.versions import SMOLLM, make_site
from models.chat_template import as_text
from store.adapters import BASE

TAB = "generation"
Ask = Callable[[str], str]


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Compare the answers, then alternate; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench chat")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer")
    parser.add_argument("--base", default=SMOLLM, help="an id or a folder")
    parser.add_argument("--gguf", default="", help="the same base as a GGUF file, for llama.cpp")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        site = make_site(Path(folder), options.base, "causal-lm")
        job = {"writer": str(site.model.path), "tokens": options.tokens}
        count = counter(site)
        with serve_stock("chat", job) as stock, serve_app(site, [TAB], {TAB: site.spec.model}) as app:
            asked: dict[str, list[Ask]] = {
                "stock": [partial(_ask_stock, stock.client()) for _ in range(options.people)],
                "graft": [partial(_ask_app, app.client(), options.tokens) for _ in range(options.people)],
            }
            rows = [
                row for people in dict.fromkeys((1, options.people)) for row in _compare(asked, people, count, options)
            ]
        return rows + _llama_cpp(options, count)


def _compare(
    asked: dict[str, list[Ask]], people: int, count: Callable[[str], int], options: argparse.Namespace
) -> list[dict[str, Any]]:
    questions = [QUESTIONS[i % len(QUESTIONS)] for i in range(people)]
    texts: dict[str, list[str]] = {}

    def once(side: str) -> float:
        asks = asked[side][:people]
        seconds, texts[side] = together([partial(ask, q) for ask, q in zip(asks, questions, strict=True)])
        return sum(map(count, texts[side])) / seconds

    for side in asked:
        once(side)
    same = alike(texts["graft"], texts["stock"])
    if same < LEAST_SAME * people:
        raise RuntimeError(f"Only {same} of {people} answers are the same:\n{texts}")
    speeds = alternate({side: partial(once, side) for side in asked}, options.rounds)
    return [
        {
            "what": f"{people} {'person' if people == 1 else 'people'}: "
                    f"{'Gradio and generate' if side == 'stock' else 'graft'}",
            "tokens a second": round(statistics.median(speeds[side]), 1),
            "beside stock": str(ratio(speeds[side], speeds["stock"])) if side == "graft" else "",
            "same answers": f"{same} of {people}" if side == "graft" else "",
        }
        for side in asked
    ]  # fmt: skip


def _llama_cpp(options: argparse.Namespace, count: Callable[[str], int]) -> list[dict[str, Any]]:
    """One person, without HTTP; says so where it cannot be measured."""
    what = "1 person: llama.cpp, inside"
    if not options.gguf or importlib.util.find_spec("llama_cpp") is None:
        return [{"what": what, "tokens a second": "not measured"}]
    llama: Any = importlib.import_module("llama_cpp").Llama(options.gguf, verbose=False)

    def once() -> float:
        started = time.perf_counter()
        found = llama.create_chat_completion(
            [{"role": "user", "content": QUESTIONS[0]}], max_tokens=options.tokens, temperature=0
        )
        return count(found["choices"][0]["message"]["content"]) / (time.perf_counter() - started)

    once()
    return [{"what": what, "tokens a second": round(statistics.median(once() for _ in range(options.rounds)), 1)}]


def _ask_app(client: Client, tokens: int, question: str) -> str:
    chat, _ = client.predict(question, temperature=0, max_new_tokens=tokens, adapter=BASE, api_name=f"/{TAB}")
    return as_text(chat[-1]["content"])


def _ask_stock(client: Client, question: str) -> str:
    client.reset_session()  # its page keeps the conversation
    return as_text(client.predict(question, api_name="/answer"))
