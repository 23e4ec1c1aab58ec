"""Split rows into those to train on and those held out, by the content of a row and not by its position."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.data.table import Digests, Indices, Mask, grouped

MOST_HELD_OUT = 1000
"""Rows; more would make the comparison after a run slow and hardly more certain."""
LABEL_ROWS = 5
"""Rows from which a label has at least one held out."""


def split(texts: Digests, labels: NDArray[np.uint16] | None, fraction: float, most: int = MOST_HELD_OUT) -> Mask:
    """Return the mask of held-out rows: about `fraction` of them, at most half and `most`.

    `texts` are the rows' digests (`table.text_digest`). A text is held out when its digest, as a number in [0, 1),
    falls below `fraction`: it stays on its side when rows are added or moved, and is never on both. Only where that
    gives few rows, or none of a label, is it corrected: a stratum (a label, where there are `labels`, otherwise
    everything) has between half and twice its share held out.
    """
    rows = _Texts(texts, labels)
    chosen = [_hold_out(rows, stratum, fraction) for stratum in rows.strata]
    # The first text of each label before all others, where not all can be held out.
    firsts, others = [groups[:1] for groups in chosen], [groups[1:] for groups in chosen]
    held = [*_nearest_first(firsts), *_nearest_first(others)]
    return rows.members(_fitting(rows, held or _last_resort(rows), most))


class _Texts:
    """Groups of rows with the same text, in the order of their digests, and the groups of each stratum."""

    def __init__(self, texts: Digests, labels: NDArray[np.uint16] | None) -> None:
        self._order, self._starts = grouped(texts)
        self.sizes = np.diff(self._starts, append=len(texts))
        # The first 48 bits: as many as the fractional part of a double can tell apart with room to spare.
        self.places = (texts[self._order[self._starts]] >> np.uint64(16)) / 2**48
        self.strata = self._strata(labels)

    def members(self, groups: list[int]) -> Mask:
        """Return the mask of the rows of those groups."""
        held = np.zeros(len(self._order), bool)
        for group in groups:
            start = self._starts[group]
            held[self._order[start : start + self.sizes[group]]] = True
        return held

    def _strata(self, labels: NDArray[np.uint16] | None) -> list[Indices]:
        """Return the groups of each stratum, nearest first; a text with several labels belongs to the first of them."""
        if labels is None or not len(self.sizes):
            return [np.arange(len(self.sizes))]
        by_label, starts = grouped(np.minimum.reduceat(labels[self._order], self._starts))
        return np.split(by_label, starts[1:])


def _hold_out(rows: _Texts, stratum: Indices, fraction: float) -> Indices:
    """Return the groups of one stratum to hold out, nearest first."""
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
    # Groups are numbered by their digests.
    nearest: list[int] = np.sort(np.concatenate([np.empty(0, np.int64), *choices])).tolist()
    return nearest


def _fitting(rows: _Texts, groups: list[int], most: int) -> list[int]:
    """Return as many of the groups as the limit allows, in their order."""
    kept, count = [], 0
    for group in groups:
        size = int(rows.sizes[group])
        if count + size <= most:
            kept.append(group)
            count += size
        if count == most:
            break
    return kept


def _last_resort(rows: _Texts) -> list[int]:
    """Return one group of at most half of the rows, as something must be held out; a label's only text if need be."""
    alone = np.zeros(len(rows.sizes), bool)
    alone[[stratum[0] for stratum in rows.strata if len(stratum) == 1]] = True
    order = np.argsort(alone, kind="stable")
    last: list[int] = order[rows.sizes[order] * 2 <= rows.sizes.sum()][:1].tolist()
    return last
