"""Pages of Gradio and transformers alone, as the guides of both show them.

`python -m bench.peers.stock_page PAGE JOB` serves until it is ended, at the port that GRADIO_SERVER_PORT names.

    bare       an Interface that does nothing
    classify   an Interface on a pipeline: the base with an adapter merged into it
    chat       `ChatInterface` on a model that streams through a `TextIteratorStreamer`; greedy, to be compared
    three      three pipelines, a tab for each: classify, and two that write

A job names `classifier` and `writer`, folders of bases; `adapter`, of a classifier's version, and its `labels`; and
`tokens`, the longest answer. Gradio's own settings stand: one request of a page at a time. `Interface.from_pipeline`
would be shorter; that of Gradio 6.31 asks for a module that transformers 5 no longer has.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from threading import Thread
from typing import Any

import gradio as gr

Job = dict[str, Any]


def chat(job: Job) -> gr.Blocks:
    """Make a page for conversations, as Gradio's guide does."""
    from transformers import TextIteratorStreamer  # noqa: PLC0415 - a bare page imports no torch

    from bench.peers.stock_answers import load_writer  # noqa: PLC0415

    net, tokenizer = load_writer(job["writer"])

    def answer(message: str, history: list[Mapping[str, Any]]) -> Iterator[str]:
        messages = [*history, {"role": "user", "content": message}]
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        ).to(net.device)
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        options = {**inputs, "streamer": streamer, "max_new_tokens": job["tokens"], "do_sample": False}
        Thread(target=net.generate, kwargs=options).start()
        text = ""
        for piece in streamer:
            text += piece
            yield text

    return gr.ChatInterface(answer, api_name="answer")


def classify(job: Job, name: str = "answer") -> gr.Interface:
    """Make a page that shows labels."""
    from bench.peers.stock_answers import merged_pipeline  # noqa: PLC0415

    classifier = merged_pipeline(job)

    def answer(text: str) -> dict[str, float]:
        return {one["label"]: one["score"] for one in classifier(text)}

    return gr.Interface(answer, "text", "label", api_name=name)


def write(job: Job, name: str) -> gr.Interface:
    """Make a page that shows a written answer."""
    from transformers import pipeline  # noqa: PLC0415

    from bench.peers.stock_answers import load_writer  # noqa: PLC0415

    net, tokenizer = load_writer(job["writer"])
    writer = pipeline("text-generation", model=net, tokenizer=tokenizer)

    def answer(text: str) -> str:
        messages = [{"role": "user", "content": text}]
        found = writer(messages, max_new_tokens=job["tokens"], do_sample=False, return_full_text=False)
        return str(found[0]["generated_text"])

    return gr.Interface(answer, "text", "text", api_name=name)


def three(job: Job) -> gr.Blocks:
    """Make a page with a tab for each of three pipelines."""
    pages = [classify(job, "classify"), write(job, "summarize"), write(job, "generate")]
    return gr.TabbedInterface(pages, ["Classify", "Summarize", "Generate"])


def bare(job: Job) -> gr.Blocks:
    """Make the least that a page can be."""
    return gr.Interface(lambda text: text, "text", "text", api_name="answer")


if __name__ == "__main__":
    pages = {"bare": bare, "classify": classify, "chat": chat, "three": three}
    pages[sys.argv[1]](json.loads(sys.argv[2])).launch(quiet=True)
