"""Which rows are held out of training, decided by what a row says and not by where it stands."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from training.rows import Row, asked

MOST_HELD_OUT = 1000
"""Rows; more would make the comparison after a run slow and hardly surer."""
LABEL_ROWS = 5
"""Rows from which a label has at least one held out."""
Group = tuple[float, list[int]]
"""A place in [0, 1) that only seed and text decide, and the rows with that text."""


def split(rows: Sequence[Row], fraction: float, seed: int, by_label: bool) -> tuple[list[Row], list[Row]]:
    """Rows to train on and rows held out, about `fraction` of them (at most half and 1,000), each in the given order.

    A text is held out when the hash of `seed` and text falls below `fraction`, so it stays on its side when rows are
    added or moved, and a text is never on both sides. Only where that gives few rows, or none of a label, is it
    corrected: a stratum (a label with `by_label`, otherwise everything) has between half and twice its share held out.
    """
    chosen: list[tuple[bool, Group]] = []
    strata = _strata(rows, seed, by_label)
    for groups in strata:
        held = _hold_out(groups, fraction)
        chosen += [(index > 0, group) for index, group in enumerate(held)]
    if not chosen:
        # Something must be held out: a row of its own label's only one as a last resort.
        every = [(len(groups) == 1, group) for groups in strata for group in groups]
        chosen = sorted(choice for choice in every if len(choice[1][1]) * 2 <= len(rows))[:1]
    kept: set[int] = set()
    # Over the limit, the first of each label stays and the rest goes from the far end.
    for _, (_, members) in sorted(chosen):
        if len(kept) + len(members) <= MOST_HELD_OUT:
            kept.update(members)
    train = [row for index, row in enumerate(rows) if index not in kept]
    return train, [rows[index] for index in sorted(kept)]


def _strata(rows: Sequence[Row], seed: int, by_label: bool) -> list[list[Group]]:
    """The rows with the same text together, in the order of their place, for each label or all at once."""
    texts: defaultdict[str, list[int]] = defaultdict(list)
    for index, row in enumerate(rows):
        texts[asked(row).strip()].append(index)
    strata: defaultdict[str, list[Group]] = defaultdict(list)
    for text, members in texts.items():
        label = min(rows[index]["target"] for index in members) if by_label else ""
        strata[label].append((_place(seed, text), members))
    return [sorted(strata[label]) for label in sorted(strata)]


def _place(seed: int, text: str) -> float:
    return int.from_bytes(hashlib.sha256(f"{seed}\n{text}".encode()).digest()[:6]) / 2**48


def _hold_out(groups: Sequence[Group], fraction: float) -> list[Group]:
    """The groups of one stratum to hold out, nearest first."""
    total = sum(len(members) for _, members in groups)
    least = total * fraction / 2 if total >= LABEL_ROWS else 0  # however small, it asks for one row
    most = min(max(total * fraction * 2, 1), total // 2)
    held: list[Group] = []
    count = 0
    for place, members in groups:
        if (place < fraction or count < least) and count + len(members) <= most:
            held.append((place, members))
            count += len(members)
    return held
