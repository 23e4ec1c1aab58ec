"""Written answers for many clients: conversations through HTTP, and a batch whose rows use different versions.

    python -m bench chat --rounds 5       one client and eight, beside stock Gradio with `generate`
    python -m bench chat --gguf FILE      and llama.cpp on the same base, where its Python package is installed
    python -m bench mixed --rounds 5      no version, one, and one for each row, beside PEFT's `adapter_names`

Tokens a second over all clients, from the questions to the end of the last answer; greedy, so that both sides write the
same texts. In `mixed` Graft is asked by a thread for each row through its pool, as tabs ask it; the peers get the same
prompts as one padded batch, and load the same versions, random LoRA on all linear layers.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gradio_client import Client

from bench.bench_tab import QUESTIONS, BenchTab, check_texts, open_tab, publish
from bench.measure import Figures, Row, alternate, call_together, compare_answers, parse, ratio, summarize
from bench.servers import serve_app, serve_stock, start_peer
from models.chat_template import as_text
from store.adapters import BASE

Texts = tuple[float, list[str]]
"""Seconds, and answers."""
BATCHES = {
    "none": ("stock: generate", "graft: no version"),
    "one": ("stock: one PEFT adapter", "graft: one version"),
    "mixed": ("stock: PEFT adapter_names", "graft: a version for each row"),
}
"""Use of adapters in a batch -> names of both contenders."""


def chat(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Compare the answers through HTTP, then the speed."""
    options = parse(__doc__, arguments, rounds=5, clients=8, tokens=48, base="", gguf="")
    tab = open_tab(folder, "causal-lm", options.base)
    job, rows = {"writer": str(tab.model.path), "tokens": options.tokens}, list[Row]()
    with serve_stock("chat", job) as stock, serve_app(tab.settings.home, {tab.spec.name: tab.spec.model}) as app:
        theirs = [partial(_ask_stock, stock.client()) for _ in range(options.clients)]
        ours = [partial(_ask_app, app.client(), options.tokens) for _ in range(options.clients)]
        for clients in dict.fromkeys((1, options.clients)):
            names = f"{clients} at once: Gradio and generate", f"{clients} at once: graft"
            asks = {names[0]: partial(_ask_all, theirs[:clients]), names[1]: partial(_ask_all, ours[:clients])}
            rows += compare_answers(asks, {names[1]: names[0]}, check_texts, tab.speed, options.rounds)[0]
    return rows + _llama_cpp(tab, options.gguf, options.tokens, options.rounds)


def _ask_all(clients: Sequence[Callable[[str], str]]) -> Texts:
    return call_together([partial(ask, QUESTIONS[i % len(QUESTIONS)]) for i, ask in enumerate(clients)])


def _ask_app(client: Client, tokens: int, question: str) -> str:
    chat, _ = client.predict(question, temperature=0, max_new_tokens=tokens, adapter=BASE, api_name="/generation")
    return as_text(chat[-1]["content"])


def _ask_stock(client: Client, question: str) -> str:
    client.reset_session()  # its page keeps the conversation
    return as_text(client.predict(question, api_name="/answer"))


def _llama_cpp(tab: BenchTab, gguf: str, tokens: int, rounds: int) -> list[Row]:
    """Measure one client without HTTP; the row says so where that is not possible."""
    name = "1 at once: llama.cpp, without HTTP"
    if not gguf or importlib.util.find_spec("llama_cpp") is None:
        return [{"what": name, "tokens a second": "not measured"}]
    llama: Any = importlib.import_module("llama_cpp").Llama(gguf, verbose=False)
    messages = [{"role": "user", "content": QUESTIONS[0]}]

    def measure(_: int) -> Figures:
        started = time.perf_counter()
        found = llama.create_chat_completion(messages, max_tokens=tokens, temperature=0)
        return tab.speed(time.perf_counter() - started, [found["choices"][0]["message"]["content"]])

    measure(0)
    return summarize(alternate({name: measure}, rounds), {})


def mixed(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Compare the answers inside one process, then the speed."""
    options = parse(__doc__, arguments, rounds=5, clients=8, versions=8, tokens=48, rank=8, base="")
    tab = open_tab(folder, "causal-lm", options.base)
    versions = publish(tab, [f"v{i}" for i in range(options.versions)], options.rank)
    prompts = [tab.encode(QUESTIONS[i % len(QUESTIONS)]) for i in range(options.clients)]
    adapters = {version.name: str(version.path) for version in versions}
    job = {"base": str(tab.model.path), "adapters": adapters, "prompts": prompts, "tokens": options.tokens}
    refs = {"none": [BASE], "one": [versions[0].ref], "mixed": [version.ref for version in versions]}
    with start_peer("decode", **job) as ask:
        asks: dict[str, Callable[[], Texts]] = {}
        for batch, (stock, graft) in BATCHES.items():
            asks[stock] = partial(_ask_peer, ask, batch)
            asks[graft] = partial(ask_versions, tab, refs[batch], options.clients, options.tokens)
        peers = {graft: stock for stock, graft in BATCHES.values()}
        rows, measured = compare_answers(asks, peers, check_texts, tab.speed, options.rounds)
    for row in rows:
        name, plain = row["what"], BATCHES["none"][row["what"] in peers]
        row["x without adapter"] = ratio(measured[name], measured[plain], "tokens a second")
    return rows


def ask_versions(tab: BenchTab, refs: Sequence[str], clients: int, tokens: int) -> Texts:
    """Ask the versions in turn, a question for each client, all at once; returns seconds until the last, and texts."""
    calls = [partial(tab.ask, refs[i % len(refs)], QUESTIONS[i % len(QUESTIONS)], tokens) for i in range(clients)]
    seconds, answers = call_together(calls)
    return seconds, [text for _, text in answers]


def _ask_peer(ask: Callable[..., Any], batch: str) -> Texts:
    found = ask(batch=batch)
    return found["seconds"], found["texts"]
