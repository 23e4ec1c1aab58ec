"""What is kept of each row of a large file: a few numbers instead of its texts, about 34 bytes a row.

Texts are known again by 64-bit digests. That two different ones of 50 million share one has a chance of 1 in 15,000,
and costs one row.
"""

from __future__ import annotations

import hashlib
import string
import unicodedata
from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from training.data.rows import Row, asked


class _Spaces(dict[int, str | int]):
    """For `str.translate`: a space for every mark of punctuation, separator and control character; filled as needed."""

    def __missing__(self, code: int) -> str | int:
        self[code] = " " if unicodedata.category(chr(code))[0] in "PZC" else code
        return self[code]


SPACES = _Spaces()
MARKS = "".join(c for c in map(chr, range(128)) if unicodedata.category(c)[0] in "PZC")
QUICK = bytes.maketrans((MARKS + string.ascii_uppercase).encode(), b" " * len(MARKS) + string.ascii_lowercase.encode())
"""What `SPACES` and lower case do, for ASCII: many times as fast."""


def plain(text: str) -> bytes:
    """A text without case, punctuation and the width of white space; the text itself where that leaves nothing."""
    if text.isascii():
        words = text.encode().translate(QUICK).split()
    else:
        words = [w.encode() for w in unicodedata.normalize("NFKC", text).casefold().translate(SPACES).split()]
    return b" ".join(words) or text.strip().encode()


MOST_NAMES = 1_000
"""Labels that are told apart; a file with more is refused, and their names could fill the memory."""
PARTS = 16
"""Digests are compared a part at a time, as sorting them takes memory."""
MASK = 2**64 - 1

Digests = NDArray[np.uint64]
Indices = NDArray[np.int64]


class RowDigests:
    """The rows of a file as one column of numbers for each thing that is asked of them later."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._texts, self._contents, self._answers = array("Q"), array("Q"), array("I")
        self._words, self._labels, self._plain = array("I"), array("H"), array("Q")
        self.names: dict[str, int] = {}
        """Label -> its number, in the order in which they were met."""

    def add(self, row: Row, by_label: bool) -> tuple[int, int]:
        """Keep the numbers of `row`; returns the digests of what it asks and of all that it says.

        White space around texts is no part of either.
        """
        text = asked(row)
        answer = (row["messages"][-1]["content"] if "messages" in row else row["target"]).strip()
        content = _hash(_content(row))
        digest = text_digest(self._seed, text)
        self._texts.append(digest)
        self._plain.append(_hash(plain(text)))
        self._contents.append(content)
        self._answers.append(_hash(answer) & 0xFFFFFFFF)
        self._words.append(len(text.split()))
        self._labels.append(self._number(row["target"]) if by_label else 0)
        return digest, content

    def repeats(self) -> tuple[Indices, Indices]:
        """The rows that say what an earlier row says, in order, and for each the first row that says it."""
        repeats, firsts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for order, starts in grouped(np.frombuffer(self._contents, np.uint64)):
            later = np.ones(len(order), bool)
            later[starts] = False
            repeats.append(order[later])
            firsts.append(np.repeat(order[starts], np.diff(starts, append=len(order)))[later])
        found = np.concatenate(repeats)
        in_order = np.argsort(found)
        return found[in_order], np.concatenate(firsts)[in_order]

    def texts(self, usable: NDArray[np.bool_]) -> Digests:
        """The digest of seed and text of each usable row."""
        return np.frombuffer(self._texts, np.uint64)[usable]

    def plain(self, usable: NDArray[np.bool_]) -> Digests:
        """Of each usable row, the digest of its text; means nothing to another process."""
        return np.frombuffer(self._plain, np.uint64)[usable]

    def conflicts(self, usable: NDArray[np.bool_]) -> int:
        """Texts that usable rows answer in more than one way."""
        answers, count = np.frombuffer(self._answers, np.uint32)[usable], 0
        for order, starts in grouped(self.texts(usable)):
            these = answers[order]
            count += int((np.minimum.reduceat(these, starts) != np.maximum.reduceat(these, starts)).sum())
        return count

    def words(self, usable: NDArray[np.bool_]) -> dict[str, int]:
        """Median and maximum of the words that a usable row asks with."""
        counts = np.frombuffer(self._words, np.uint32)[usable]
        return {"median": round(float(np.median(counts))), "max": int(counts.max())} if len(counts) else {
            "median": 0, "max": 0}  # fmt: skip

    def labels(self, usable: NDArray[np.bool_]) -> NDArray[np.uint16]:
        """The label of each usable row, as its place among the sorted `names`."""
        place = {name: i for i, name in enumerate(sorted(self.names))}
        places = np.array([*(place[name] for name in self.names), len(place)], np.uint16)
        return places[np.frombuffer(self._labels, np.uint16)[usable]]

    def _number(self, label: str) -> int:
        number = self.names.get(label)
        if number is None:
            number = len(self.names)
            if number < MOST_NAMES:
                self.names[label] = number
        return number


def text_digest(seed: int, text: str) -> int:
    """64 bits that only the seed and a text decide, white space around it aside; evenly spread, the same for ever."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{text.strip()}".encode()).digest()[:8])


def grouped(digests: Digests) -> Iterator[tuple[Indices, Indices]]:
    """Indices of equal digests together, each group in order, and where each group starts; smaller digests first."""
    part_of = (digests >> np.uint64(60)).astype(np.uint8)
    for part in range(PARTS):
        index = np.flatnonzero(part_of == part)
        if len(index):
            order = index[np.argsort(digests[index], kind="stable")]
            ranked = digests[order]
            yield order, np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))


def _content(row: Row) -> tuple[str, ...]:
    messages = [part for m in row.get("messages", ()) for part in (m["role"], m["content"].strip())]
    return tuple(messages) or (row["text"].strip(), row["target"].strip())


def _hash(value: object) -> int:
    """Python's own hash: keyed anew in each process, so that no file can be made of rows that share one."""
    return hash(value) & MASK
