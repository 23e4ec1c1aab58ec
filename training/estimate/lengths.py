"""How long rows are, as few numbers as an estimate needs: from a report, or from the rows as they were prepared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from training.data.inspect.report import Report

TOKENS_A_WORD = 1.4
"""Of English and its neighbours, by the tokenizers of the bases that come with Graft."""
AROUND = 30
"""Tokens of a prompt and of a chat template around the words of a row."""
LEARNED = 0.35
"""The learned share of a row that answers with text, where only its words are known."""
BINS = 64


@dataclass(frozen=True)
class Lengths:
    """Rows that can be used: some lengths in tokens, ascending, and how many rows have each."""

    tokens: tuple[float, ...]
    rows: tuple[float, ...]
    learned: float
    """The share of the tokens that is learned."""
    by: Literal["rows", "sample", "words", "limit"]
    """Whether they were counted, counted in a sample, guessed from words, or are the most that the settings allow."""

    @property
    def count(self) -> float:
        """Rows."""
        return sum(self.rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.tokens[-1])

    @property
    def mean(self) -> float:
        """Tokens of the usual row."""
        total = sum(tokens * rows for tokens, rows in zip(self.tokens, self.rows, strict=True))
        return total / max(1e-9, self.count)

    def cut(self, limit: int) -> Lengths:
        """The same rows, none longer than `limit`."""
        return replace(self, tokens=tuple(min(float(limit), tokens) for tokens in self.tokens))

    def times(self, share: float) -> Lengths:
        """A share of the rows."""
        return replace(self, rows=tuple(rows * share for rows in self.rows))


def of_rows(tokens: NDArray[np.int32], learned: NDArray[np.int32]) -> Lengths:
    """Of rows that were prepared."""
    counts, edges = np.histogram(tokens, bins=min(BINS, int(np.ptp(tokens)) + 1))
    sums, _ = np.histogram(tokens, bins=edges, weights=tokens.astype(float))
    kept = counts > 0
    means = (sums[kept] / counts[kept]).tolist()
    means[-1] = float(tokens.max())  # memory follows the longest row, time hardly notices
    share = float(learned.sum()) / max(1, int(tokens.sum()))
    return Lengths(tuple(means), tuple(counts[kept].tolist()), min(1.0, share), "rows")


def of_limit(limit: int, rows: int) -> Lengths:
    """Of rows of which nothing is known but the longest length that the settings allow."""
    return Lengths((float(limit),), (float(rows),), LEARNED, "limit")


def of_report(report: Report) -> Lengths:
    """Of the rows of a report: by its tokens, or else by its words."""
    found = _of_tokens(getattr(report, "tokens", None), report.usable)
    if found:
        return found
    median, most = (TOKENS_A_WORD * report.words.get(key, 0) + AROUND for key in ("median", "max"))
    # Lengths of texts lean to the short side: most rows near the median, few of them far above.
    points: Sequence[tuple[float, float]] = ((0.7 * median, 0.4), (median, 0.3), (1.5 * median, 0.25), (most, 0.05))
    points = sorted((min(tokens, most), share) for tokens, share in points)
    tokens, rows = zip(*((tokens, share * report.usable) for tokens, share in points), strict=True)
    return Lengths(tokens, rows, LEARNED, "words")


def _of_tokens(found: object, usable: int) -> Lengths | None:
    """Of a histogram of tokens (edges, counts, longest, mean, learned_mean), brought to all usable rows."""
    edges, counts = tuple(getattr(found, "edges", ())), tuple(getattr(found, "counts", ()))
    if not counts or not sum(counts):
        return None
    longest, mean = float(getattr(found, "longest", edges[-1])), float(getattr(found, "mean", 0))
    middles = [(low + high) / 2 for low, high in pairwise(edges)]
    kept = [(min(middle, longest), usable * n / sum(counts)) for middle, n in zip(middles, counts, strict=False) if n]
    tokens, rows = (list(column) for column in zip(*kept, strict=True))
    tokens[-1] = longest
    share = float(getattr(found, "learned_mean", 0)) / mean if mean else LEARNED
    return Lengths(tuple(tokens), tuple(rows), min(1.0, share), "sample")
