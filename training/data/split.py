"""Which rows are held out of training, decided by what a row says and not by where it stands."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.digests import Digests, Indices, grouped

MOST_HELD_OUT = 1000
"""Rows; more would make the comparison after a run slow and hardly surer."""
LABEL_ROWS = 5
"""Rows from which a label has at least one held out."""


def split(texts: Digests, labels: NDArray[np.uint16] | None, fraction: float) -> NDArray[np.bool_]:
    """Which rows are held out: about `fraction` of them, at most half and 1,000.

    `texts` are the rows' digests of seed and text (`digests.text_digest`). A text is held out when its digest,
    as a number in [0, 1), falls below `fraction`, so it stays on its side when rows are added or moved, and a text is
    never on both sides. Only where that gives few rows, or none of a label, is it corrected: a stratum (a label, where
    there are `labels`, otherwise everything) has between half and twice its share held out.
    """
    rows = _Texts(texts, labels)
    chosen = [_hold_out(rows, stratum, fraction) for stratum in rows.strata]
    firsts = [groups[:1] for groups in chosen]
    held = [*_nearest_first(firsts), *_nearest_first([groups[1:] for groups in chosen])]
    return rows.members(_fitting(rows, held or _last_resort(rows)))


class _Texts:
    """Rows with the same text as one group, in the order of their digests, and the groups of each stratum."""

    def __init__(self, texts: Digests, labels: NDArray[np.uint16] | None) -> None:
        parts = list(grouped(texts))
        before = np.cumsum([0, *(len(order) for order, _ in parts)])
        self._order = np.concatenate([np.empty(0, np.int64), *(order for order, _ in parts)])
        self._starts = np.concatenate(
            [np.empty(0, np.int64), *(starts + n for n, (_, starts) in zip(before, parts, strict=False))]
        )
        self.sizes = np.diff(self._starts, append=len(texts))
        # The first 48 bits: as many as the fractional part of a double can tell apart with room to spare.
        self.places = (texts[self._order[self._starts]] >> np.uint64(16)) / 2**48
        self.strata = self._strata(labels)

    def members(self, groups: list[int]) -> NDArray[np.bool_]:
        """The rows of those groups, as a mask."""
        held = np.zeros(len(self._order), bool)
        for group in groups:
            start = self._starts[group]
            held[self._order[start : start + self.sizes[group]]] = True
        return held

    def _strata(self, labels: NDArray[np.uint16] | None) -> list[Indices]:
        """The groups of each stratum, nearest first; a text with several labels is of the first of them."""
        if labels is None or not len(self.sizes):
            return [np.arange(len(self.sizes))]
        first = np.minimum.reduceat(labels[self._order], self._starts)
        by_label = np.argsort(first, kind="stable")
        return np.split(by_label, np.flatnonzero(np.diff(first[by_label])) + 1)


def _hold_out(rows: _Texts, stratum: Indices, fraction: float) -> Indices:
    """The groups of one stratum to hold out, nearest first."""
    sizes, total = rows.sizes[stratum], int(rows.sizes[stratum].sum())
    least = total * fraction / 2 if total >= LABEL_ROWS else 0  # however small, it asks for one row
    most = min(max(total * fraction * 2, 1), total // 2)
    near = int(np.searchsorted(rows.places[stratum], fraction))
    held, count = [], 0
    for index, size in enumerate(sizes.tolist()):
        if index >= near and count >= least:
            break
        if count + size <= most:
            held.append(index)
            count += size
    return stratum[held]


def _nearest_first(choices: list[Indices]) -> list[int]:
    # Groups are numbered by their place.
    nearest: list[int] = np.sort(np.concatenate([np.empty(0, np.int64), *choices])).tolist()
    return nearest


def _fitting(rows: _Texts, groups: list[int]) -> list[int]:
    """As many of the groups as the limit allows, the first of each label first and the rest from the near end."""
    kept, count = [], 0
    for group in groups:
        size = int(rows.sizes[group])
        if count + size <= MOST_HELD_OUT:
            kept.append(group)
            count += size
        if count == MOST_HELD_OUT:
            break
    return kept


def _last_resort(rows: _Texts) -> list[int]:
    """Something must be held out: one text of at most half of the rows, a label's only text as the last of all."""
    alone = np.zeros(len(rows.sizes), bool)
    alone[[stratum[0] for stratum in rows.strata if len(stratum) == 1]] = True
    order = np.argsort(alone, kind="stable")
    last: list[int] = order[rows.sizes[order] * 2 <= rows.sizes.sum()][:1].tolist()
    return last
