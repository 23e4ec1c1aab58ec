"""A tab as its handler sees it, without the page: asked for a version, it says which one answered, and what."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.versions import MINILM, SMOLLM, Site, make_site
from serving.lm import LM
from serving.pool import Pool
from store.adapters import BASE
from tasks import TASKS

KINDS: Mapping[str, tuple[str, str, Sequence[str]]] = {
    "classification": (MINILM, "text-classification", (
        "The plot drags, but the acting saves it.", "Two hours of my life that I would like to have back.",
        "A warm, funny film that I would gladly see again.", "Nothing in it is new, and none of it is good.",
    )),
    "generation": (SMOLLM, "causal-lm", (
        "Give me three ideas for a rainy Sunday.", "My bicycle chain keeps slipping. What should I check?",
        "Explain what a rainbow is to a child.", "Write a poem about bread.",
    )),
}  # fmt: skip
"""Base, task, and what is asked."""
OWN = ["praise", "complaint"]
"""Labels for a base that has none."""


@dataclass(frozen=True)
class Tab:
    """One tab with its base in memory."""

    kind: str
    site: Site
    pool: Pool
    tokens: int
    """Of an answer in words."""

    @property
    def labelled(self) -> bool:
        """Whether it answers with labels."""
        return TASKS[self.site.spec.task].answers == "label"

    @property
    def texts(self) -> Sequence[str]:
        """What is asked."""
        return KINDS[self.kind][2]

    def ask(self, adapter: str, text: str) -> tuple[str, Any]:
        """The version that answered, and what it said: a text, or labels with probabilities."""
        with self.pool.open(self.site.spec, adapter) as lm:
            named = lm.version
            said = self._labels(lm, text) if self.labelled else [*lm.generate(text, max_new_tokens=self.tokens)][-1]
            return named, said

    def waits(self, adapter: str, text: str) -> list[float]:
        """Seconds until the answer; of an answer in words, until its first piece, and from each piece to the next."""
        at = [time.perf_counter()]
        with self.pool.open(self.site.spec, adapter) as lm:
            length = 4 * self.tokens
            pieces: Iterable[Any] = (
                [self._labels(lm, text)] if self.labelled else lm.generate(text, max_new_tokens=length)
            )
            at += [time.perf_counter() for _ in pieces]
        return [later - earlier for earlier, later in pairwise(at)]

    def _labels(self, lm: LM, text: str) -> dict[str, float]:
        return lm.classify(text, OWN if lm.version == BASE else None)


def open_tab(folder: Path, kind: str, base: str = "", tokens: int = 4) -> Tab:
    """A tab of that kind, on its usual base unless another is named, with no versions yet."""
    usual, task, _ = KINDS[kind]
    site = make_site(folder, base or usual, task)
    return Tab(kind, site, site.pool(), tokens)
