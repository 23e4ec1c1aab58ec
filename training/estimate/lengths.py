"""Histograms of row lengths in tokens, from a report on a file or from prepared rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data.inspect.report import Report

TOKENS_A_WORD = 1.4
"""Tokens per word of English and similar languages, by the tokenizers of the default bases."""
AROUND = 30
"""Tokens of the prompt and the chat template of a row."""
LEARNED = 0.35
"""Share of a row's tokens that is learned, where only its words are known."""
BINS = 64


@dataclass(frozen=True)
class LengthHistogram:
    """Row lengths in tokens, ascending, and the number of rows of each."""

    tokens: tuple[float, ...]
    rows: tuple[float, ...]
    learned: float
    """Share of the tokens that is learned."""
    by: Literal["rows", "sample", "words", "limit"]
    """Source: all rows tokenized, a sample tokenized, words counted, or the configured longest length."""

    @property
    def count(self) -> float:
        """Number of rows."""
        return sum(self.rows)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.tokens[-1])

    @property
    def mean(self) -> float:
        """Mean tokens of a row."""
        total = sum(tokens * rows for tokens, rows in zip(self.tokens, self.rows, strict=True))
        return total / max(1e-9, self.count)

    def cut(self, limit: int) -> LengthHistogram:
        """Return the same rows, cut to `limit` tokens."""
        return replace(self, tokens=tuple(min(float(limit), tokens) for tokens in self.tokens))

    def times(self, share: float) -> LengthHistogram:
        """Return that share of the rows, with the same lengths."""
        return replace(self, rows=tuple(rows * share for rows in self.rows))


def from_rows(tokens: NDArray[np.int32], learned: NDArray[np.int32]) -> LengthHistogram:
    """Return the histogram of prepared rows, from the tokens (rows,) and learned tokens (rows,) of each."""
    counts, edges = np.histogram(tokens, bins=min(BINS, int(np.ptp(tokens)) + 1))
    sums, _ = np.histogram(tokens, bins=edges, weights=tokens.astype(float))
    kept = counts > 0
    means = (sums[kept] / counts[kept]).tolist()
    means[-1] = float(tokens.max())  # memory follows the longest row
    share = float(learned.sum()) / max(1, int(tokens.sum()))
    return LengthHistogram(tuple(means), tuple(counts[kept].tolist()), min(1.0, share), "rows")


def from_limit(limit: int, rows: int) -> LengthHistogram:
    """Return the histogram of unknown rows, assumed to have `limit` tokens each."""
    return LengthHistogram((float(limit),), (float(rows),), LEARNED, "limit")


def from_report(report: Report) -> LengthHistogram:
    """Return the histogram of a report's usable rows, from their tokens or else estimated from their words."""
    found = report.tokens
    if found and sum(found.counts):
        bins = zip(pairwise(found.edges), found.counts, strict=False)
        middles = [(min(sum(edges) / 2, found.longest), count) for edges, count in bins if count]
        tokens = (*(middle for middle, _ in middles[:-1]), float(found.longest))
        rows = tuple(report.usable * count / sum(found.counts) for _, count in middles)
        share = found.learned_mean / found.mean if found.mean else LEARNED
        return LengthHistogram(tokens, rows, min(1.0, share), "sample")
    median, most = (TOKENS_A_WORD * report.words.get(key, 0) + AROUND for key in ("median", "max"))
    # Most texts are about as long as the median, few much longer.
    guess = [(0.7 * median, 0.4), (median, 0.3), (1.5 * median, 0.25), (most, 0.05)]
    points = sorted((min(tokens, most), share * report.usable) for tokens, share in guess)
    return LengthHistogram(tuple(t for t, _ in points), tuple(rows for _, rows in points), LEARNED, "words")


def lengths_of(config: TrainConfig, report: Report | None) -> tuple[LengthHistogram, int]:
    """Return the lengths of a run's rows and the number of labels, from the report where there is one."""
    if report is None:
        return from_limit(config.max_length, 1_000), 2
    return from_report(report), len(report.labels)
