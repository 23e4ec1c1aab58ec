"""Rows that say nearly the same, found in a sample and told: nothing is left out because of them.

What a text asks is compared without case, punctuation and the width of white space; and by the share of its runs of
eight bytes that it has in common with another one. Candidates come from MinHash (Broder, 1997) over bands (Indyk and
Motwani, 1998) and are then compared in full, so that what is told is true and only little is missed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from training.data.digests import plain
from training.data.inspect.report import Near, Pair
from training.data.rows import asked
from training.data.table import Sampled

ALIKE = 0.7
"""The share of common runs from which two texts are nearly the same."""
RUN = 8
"""Bytes that are compared together."""
BANDS, ROWS_OF_BAND = 8, 4
CHUNK = 1_000_000
"""Bytes that are hashed at a time."""
MOST_COMPARED = 50_000
"""Pairs that are compared in full."""
PAIRS = 10
"""Pairs that are shown."""
LONGEST_SHOWN = 600

Signatures = NDArray[np.uint32]
Runs = NDArray[np.uint64]


def find_near(sample: Sequence[Sampled], same: int) -> Near:
    """What of a sample is nearly the same; `same` is how many rows of the whole file repeat a text but for its form."""
    texts = [plain(asked(one.row)) for one in sample]
    first: dict[bytes, int] = {}
    twins = [(first[text], i) for i, text in enumerate(texts) if first.setdefault(text, i) != i]
    twins = [(a, b) for a, b in twins if asked(sample[a].row).strip() != asked(sample[b].row).strip()]
    distinct = sorted(first.values())
    alike = [(distinct[a], distinct[b], share) for a, b, share in _alike([texts[i] for i in distinct])]
    # One example for each row that others are like: many are made by one template.
    shown = [*((a, b, 1.0) for a, b in dict(twins).items())][: PAIRS // 2]
    shown = [*shown, *{a: (a, b, share) for a, b, share in alike}.values()][:PAIRS]
    pairs = (_pair(sample[a], sample[b], share) for a, b, share in shown)
    return Near(len(sample), same, len(alike), tuple(pairs))


def _pair(one: Sampled, other: Sampled, share: float) -> Pair:
    texts = (asked(some.row)[:LONGEST_SHOWN] for some in (one, other))
    return Pair((one.number, other.number), (next(texts), next(texts)), round(share, 3))


def _alike(texts: Sequence[bytes]) -> list[tuple[int, int, float]]:
    """(earlier, later, share of common runs) for texts that are nearly like an earlier one, each later one once."""
    signatures = np.concatenate([np.empty((0, BANDS * ROWS_OF_BAND), np.uint32), *_signatures(texts)])
    found: dict[int, tuple[int, float]] = {}
    compared: set[tuple[int, int]] = set()
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * ROWS_OF_BAND : (band + 1) * ROWS_OF_BAND])
        leaders: dict[bytes, int] = {}
        for later in range(len(texts)):
            earlier = leaders.setdefault(part[later].tobytes(), later)
            pair = (earlier, later)
            if earlier == later or later in found or pair in compared or len(compared) >= MOST_COMPARED:
                continue
            compared.add(pair)
            if (share := _common(texts[earlier], texts[later])) >= ALIKE:
                found[later] = (earlier, share)
    return [(earlier, later, share) for later, (earlier, share) in sorted(found.items())]


def _common(one: bytes, other: bytes) -> float:
    """Jaccard's index of the runs of two texts."""
    these, those = (np.unique(_runs(np.frombuffer(_padded(text), np.uint8))) for text in (one, other))
    both = len(np.intersect1d(these, those, assume_unique=True))
    return both / (len(these) + len(those) - both)


def _signatures(texts: Sequence[bytes]) -> Iterator[Signatures]:
    """The least of each hash over the runs of each text: (texts, hashes), a few texts at a time."""
    odd = np.random.default_rng(0).integers(0, 2**64, BANDS * ROWS_OF_BAND, np.uint64) | np.uint64(1)
    for batch in _batches([_padded(text) for text in texts]):
        starts = np.cumsum([0, *map(len, batch[:-1])])
        runs = _runs(np.frombuffer(b"".join(batch), np.uint8))
        runs ^= runs >> np.uint64(29)
        # The last runs of a text reach into the next: they become copies of its first, which changes no least value.
        for start, end in zip(starts, starts + [len(text) for text in batch], strict=True):
            runs[end - RUN + 1 : end] = runs[start]
        least = [np.minimum.reduceat((runs * factor) >> np.uint64(32), starts) for factor in odd]
        yield np.stack(least, 1).astype(np.uint32)


def _padded(text: bytes) -> bytes:
    return text.ljust(RUN)


def _runs(data: NDArray[np.uint8]) -> Runs:
    """Every run of bytes as a number."""
    runs = np.zeros(len(data) - RUN + 1, np.uint64)
    for i in range(RUN):
        runs = (runs << np.uint64(8)) | data[i : len(data) - RUN + 1 + i]
    return runs


def _batches(texts: Sequence[bytes]) -> Iterator[list[bytes]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= CHUNK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
