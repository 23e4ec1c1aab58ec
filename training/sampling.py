"""A sample of the rows of a file, taken while it is read once: seeded, in little memory, the same for the same file."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from training.rows import Row, texts_of

ROWS, CHARACTERS = 20_000, 8_000_000
"""What a sample holds at most."""
HALF = 2**32 - 1


@dataclass(frozen=True)
class Sampled:
    """A row of the sample, and its number in the file, from 1."""

    number: int
    row: Row


class Sample:
    """The rows of smallest priority, as many as there is room for (bottom-k sampling; Cohen and Kaplan, 2007).

    A priority is half of a row's digest, the half that no split looks at first. What was once pushed out sets a
    bound that nothing above it passes later, so that long rows are as likely to be in the sample as short ones.
    """

    def __init__(self, rows: int = ROWS, characters: int = CHARACTERS) -> None:
        self._most, self._room = rows, characters
        self._heap: list[tuple[int, int, Row, int]] = []
        self._contents: set[int] = set()
        self._bound = HALF + 1

    def add(self, number: int, digest: int, content: int, row: Row) -> None:
        """Take a row, unless the sample is full of rows that come before it or has one of the same `content`."""
        priority = digest & HALF
        if priority >= self._bound or content in self._contents:
            return
        self._contents.add(content)
        heapq.heappush(self._heap, (-priority, -number, row, content))
        self._room -= _size(row)
        while len(self._heap) > self._most or (self._room < 0 and len(self._heap) > 1):
            first, _, out, gone = heapq.heappop(self._heap)
            self._contents.discard(gone)
            self._room += _size(out)
            self._bound = -first

    def first(self, rows: int = ROWS, characters: int = CHARACTERS) -> list[Sampled]:
        """A sample of the sample, smaller or of the same size; in the order of the file."""
        found: list[Sampled] = []
        for _, number, row, _ in sorted(self._heap, key=lambda entry: (-entry[0], -entry[1])):
            characters -= _size(row)
            if len(found) == rows or (characters < 0 and found):
                break
            found.append(Sampled(-number, row))
        return sorted(found, key=lambda one: one.number)


def _size(row: Row) -> int:
    return sum(map(len, texts_of(row)))
