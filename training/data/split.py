"""Split rows into those to train on and those held out, by the content of a row and not by its position."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from training.data.inspect.report import LABEL_ROWS
from training.data.table import Digests, Indices, Mask

MOST_HELD_OUT = 1000
"""Rows; more would make the comparison after a run slow and hardly more certain."""


def split(texts: Digests, labels: NDArray[np.uint16] | None, fraction: float, most: int = MOST_HELD_OUT) -> Mask:
    """Return the mask of held-out rows: about `fraction` of them, at most half and `most`.

    `texts` are the rows' digests (`table.text_digest`). A text is held out when its digest, as a number in [0, 1),
    falls below `fraction`: it stays on its side when rows are added or moved, and is never on both. Only where that
    gives few rows, or none of a label, is it corrected: a stratum (a label, where there are `labels`, otherwise
    everything) has between half and twice its share held out.
    """
    # Rows with the same text are one group; groups are numbered in the order of their digests.
    digests, groups, sizes = np.unique(texts, return_inverse=True, return_counts=True)
    # The first 48 bits: as many as the fractional part of a double can tell apart with room to spare.
    numbers = (digests >> np.uint64(16)) / 2**48
    strata = _strata(groups, len(sizes), labels)
    chosen = [_hold_out(stratum, sizes, numbers, fraction) for stratum in strata]
    # The first text of each label before all others, where not all can be held out.
    firsts, others = (sorted(chain.from_iterable(some[part] for some in chosen)) for part in (slice(1), slice(1, None)))
    ordered = [*firsts, *others] or _last_resort(strata, sizes)
    return np.isin(groups, _take(ordered, sizes, most, least=most))


def _strata(groups: Indices, count: int, labels: NDArray[np.uint16] | None) -> list[Indices]:
    """Return the groups of each stratum, ascending; a text with several labels belongs to the first of them."""
    if labels is None:
        return [np.arange(count)]
    first = np.full(count, np.iinfo(np.uint16).max, np.uint16)
    np.minimum.at(first, groups, labels)
    order = np.argsort(first, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(first[order])) + 1)


def _hold_out(stratum: Indices, sizes: Indices, numbers: NDArray[np.float64], fraction: float) -> list[int]:
    """Return the groups of a stratum to hold out: those with numbers below `fraction`, more if few are."""
    total = int(sizes[stratum].sum())
    least = total * fraction / 2 if total >= LABEL_ROWS else 0  # however small, it asks for one row
    most = min(max(total * fraction * 2, 1), total // 2)
    return _take(stratum, sizes, most, least, sure=int(np.searchsorted(numbers[stratum], fraction)))


def _take(groups: Sequence[int] | Indices, sizes: Indices, most: float, least: float, sure: int = 0) -> list[int]:
    """Return groups that fit into `most` rows, in order: all of the first `sure` that do, then others up to `least`."""
    taken, count = list[int](), 0
    for index, group in enumerate(groups):
        if index >= sure and count >= least:
            break
        if count + sizes[group] <= most:
            taken.append(int(group))
            count += int(sizes[group])
    return taken


def _last_resort(strata: Sequence[Indices], sizes: Indices) -> list[int]:
    """Return one group of at most half of the rows, or none; rather not the only text of a label."""
    only = np.isin(np.arange(len(sizes)), [stratum[0] for stratum in strata if len(stratum) == 1])
    order = np.argsort(only, kind="stable")
    last: list[int] = order[sizes[order] * 2 <= sizes.sum()][:1].tolist()
    return last
