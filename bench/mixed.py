"""Decoding for several people at once: no version, one, and one for each of them, beside `generate` and PEFT.

    python -m bench mixed --rounds 5

Tokens a second of a batch of 8, from the question to the last answer's end. Graft is asked by 8 threads through its
pool, as tabs ask it; the peers get the same 8 prompts as one padded batch. The versions are random LoRA, rank 8 on all
linear layers, published through the store; the peers load the same folders.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from bench.measure import alternate, ratio
from bench.people import together
from bench.versions import SMOLLM, Site, make_site, publish
from bench.worker import Worker
from models.chat_template import as_messages, encode
from models.tokenizer import load_tokenizer
from serving.pool import Pool
from settings import Settings
from store.adapters import BASE, Version

QUESTIONS = (
    "Write a long story about a lighthouse keeper and a storm.",
    "Explain in detail how a bicycle stays upright.",
    "Describe a walk through a forest in autumn, with many details.",
    "Tell me everything that you know about bread.",
    "Write a letter to a friend about moving to another city.",
    "Explain how rain is made, step by step.",
    "Describe the plan for a long holiday by train.",
    "Write an essay on why people like music.",
)
WAYS = ("none", "one", "mixed")
BEGINNING = 16
"""Characters."""
LEAST_SAME = 0.75
"""Of the answers; a batch adds up in another order, and where two words are equally likely the other one is written."""


def alike(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """How many answers are the same; in bfloat16 how many begin alike, since rounding soon takes each its own way."""
    length = None if Settings.from_env().precision == "auto" else BEGINNING
    return sum(one.strip()[:length] == other.strip()[:length] for one, other in zip(ours, theirs, strict=True))


@dataclass
class Sides:
    """Both contenders over the same questions."""

    site: Site
    pool: Pool
    peer: Worker
    versions: Sequence[Version]
    questions: Sequence[str]
    tokens: int
    count: Callable[[str], int]
    texts: dict[str, list[str]] = field(default_factory=dict)
    """What each contender wrote last."""

    def refs(self, way: str) -> list[str]:
        """What answers each question."""
        chosen = {"none": [BASE], "one": [self.versions[0].ref], "mixed": [v.ref for v in self.versions]}[way]
        return [chosen[i % len(chosen)] for i in range(len(self.questions))]

    def graft(self, way: str) -> float:
        """Tokens a second of ours."""
        calls = [
            partial(write, self.pool, self.site, ref, question, self.tokens)
            for ref, question in zip(self.refs(way), self.questions, strict=True)
        ]
        seconds, self.texts[f"graft {way}"] = together(calls)
        return self._speed(f"graft {way}", seconds)

    def stock(self, way: str) -> float:
        """Tokens a second of the peer."""
        found = self.peer.ask(what=way)
        self.texts[f"stock {way}"] = found["texts"]
        return self._speed(f"stock {way}", found["seconds"])

    def _speed(self, name: str, seconds: float) -> float:
        return sum(map(self.count, self.texts[name])) / seconds

    def same(self, way: str) -> int:
        """How many of the answers are the same on both sides; raises `RuntimeError` where too many are not."""
        ours, theirs = self.texts[f"graft {way}"], self.texts[f"stock {way}"]
        found = alike(ours, theirs)
        if found < LEAST_SAME * len(ours):
            raise RuntimeError(f"{way}: only {found} of {len(ours)} answers are the same:\n{ours}\n{theirs}")
        return found


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Compare the answers, then alternate; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench mixed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--versions", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=48, help="of an answer")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--base", default=SMOLLM, help="an id or a folder")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as name:
        site = make_site(Path(name), options.base, "causal-lm")
        versions = publish(site, [f"v{i}" for i in range(options.versions)], options.rank)
        questions = [QUESTIONS[i % len(QUESTIONS)] for i in range(options.people)]
        with Worker("bench.peers.stock_decode", job(site, versions, questions, options.tokens)) as peer:
            sides = Sides(site, site.pool(), peer, versions, questions, options.tokens, counter(site))
            return compare(sides, options.rounds)


def compare(sides: Sides, rounds: int) -> list[dict[str, Any]]:
    """The answers first, which warms both sides up; then the figures."""
    contenders: Mapping[str, Callable[[], float]] = {
        f"{side} {way}": partial(getattr(sides, side), way) for way in WAYS for side in ("stock", "graft")
    }
    for contender in contenders.values():
        contender()
    same = {way: sides.same(way) for way in WAYS}
    speeds = alternate(contenders, rounds)
    return [
        {
            "what": f"{side}: {NAMES[side, way]}",
            "tokens a second": round(statistics.median(speeds[f"{side} {way}"]), 1),
            "beside no adapter": str(ratio(speeds[f"{side} {way}"], speeds[f"{side} none"])) if way != "none" else "",
            "beside stock": str(ratio(speeds[f"{side} {way}"], speeds[f"stock {way}"])) if side == "graft" else "",
            "same answers": f"{same[way]} of {len(sides.questions)}" if side == "graft" else "",
        }
        for side in ("stock", "graft")
        for way in WAYS
    ]


NAMES = {
    ("stock", "none"): "generate", ("stock", "one"): "one PEFT adapter", ("stock", "mixed"): "PEFT adapter_names",
    ("graft", "none"): "no version", ("graft", "one"): "one version", ("graft", "mixed"): "a version for each",
}  # fmt: skip


def job(site: Site, versions: Sequence[Version], questions: Sequence[str], tokens: int) -> dict[str, Any]:
    """What the peer prepares for: the same base, folders and token ids."""
    model = site.model
    tokenizer = load_tokenizer(model)
    prompts = [encode(tokenizer, as_messages(q, site.spec.prompt), answer_next=True)[0] for q in questions]
    folders = {version.name: str(version.path) for version in versions}
    return {"base": str(model.path), "adapters": folders, "prompts": prompts, "tokens": tokens}


def counter(site: Site) -> Callable[[str], int]:
    """How many tokens a text has."""
    tokenizer = load_tokenizer(site.model)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def write(pool: Pool, site: Site, ref: str, question: str, tokens: int) -> str:
    """The whole answer of a version; the likeliest words."""
    with pool.open(site.spec, ref) as lm:
        *_, text = lm.generate(question, max_new_tokens=tokens)
        return text
