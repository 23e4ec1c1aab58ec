"""Read a file of rows once, in little memory: check every record, find repeats and conflicts, and report.

No text is kept but that of a sample. Of each row 38 bytes are kept, mostly 64-bit digests by which equal texts are
found. Two different texts of 50 million share one with a chance of 1 in 15,000, which costs one row.
"""

from __future__ import annotations

import hashlib
import heapq
import string
import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import DataError
from tasks import Columns
from training.data.files.formats import Limits, title
from training.data.files.readers import open_source
from training.data.files.records import Record, Source
from training.data.inspect.report import SHOWN_ROWS, BadRow, BadRows, Report, by_count, check_learnable, find_warnings
from training.data.rows import (
    Answers,
    Row,
    RowProblem,
    choose_columns,
    columns_read,
    count_characters,
    question_of,
    texts_of,
    to_row,
)

Digests = NDArray[np.uint64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

SAMPLED_ROWS, SAMPLED_CHARACTERS = 2_000, 2_000_000
"""Limits of a sample, which a tokenizer encodes in a second or two."""
WATCHED_ROWS = 1_000
"""Rows between two calls of `watch`."""
MOST_NAMES = 1_000
"""Limit of different labels, whose names could fill the memory; a file with more is refused."""
HALF, WHOLE = 2**32 - 1, 2**64 - 1
FIELDS = np.dtype(
    {
        "names": ("number", "text", "normalized", "content", "answer", "words", "label"),
        "formats": ("<u4", "<u8", "<u8", "<u8", "<u4", "<u4", "<u2"),
    }
)
"""Numbers that are kept of a row: its record's number, digests of its texts, words of its question, its label."""
PACK = struct.Struct("<IQQQIIH").pack
"""Packs one record of `FIELDS`."""

Watch = Callable[[int, float], object]
"""Is called with the number of records that were read and the share of the file, 0..1."""
NumberedRow = tuple[int, Record, Row | str]
"""The number of a record, from 1, the record, and its row or the reason why it makes none."""


class _Spaces(dict[int, str | int]):
    """A table for `str.translate`: a space for each punctuation mark, separator and control character."""

    def __missing__(self, code: int) -> str | int:
        self[code] = " " if unicodedata.category(chr(code))[0] in "PZC" else code
        return self[code]


SPACES = _Spaces()
MARKS = "".join(c for c in map(chr, range(128)) if unicodedata.category(c)[0] in "PZC")
ASCII = bytes.maketrans((MARKS + string.ascii_uppercase).encode(), b" " * len(MARKS) + string.ascii_lowercase.encode())
"""`SPACES` and lower case for ASCII, many times as fast."""


def normalize(text: str) -> bytes:
    """Return a text without case, punctuation and repeated white space, or the text itself if nothing else is in it."""
    if text.isascii():
        words = text.encode().translate(ASCII).split()
    else:
        words = [w.encode() for w in unicodedata.normalize("NFKC", text).casefold().translate(SPACES).split()]
    return b" ".join(words) or text.strip().encode()


def text_digest(seed: int, text: str) -> int:
    """Return 64 evenly spread bits that depend on the seed and the stripped text alone; the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{text.strip()}".encode()).digest()[:8])


class RowDigests:
    """A record of `FIELDS` for each row that was added."""

    def __init__(self, seed: int, by_label: bool) -> None:
        self._seed, self._by_label, self._packed = seed, by_label, bytearray()
        self.names: dict[str, int] = {}
        """Numbers of labels in order of their first row."""

    def add(self, number: int, row: Row) -> tuple[int, int]:
        """Append the row of the record `number`; returns the digests of its question and of its whole content."""
        text, texts = question_of(row), [text.strip() for text in texts_of(row)]
        roles = [message["role"] for message in row.get("messages", ())]
        content, digest = _hash((*roles, *texts)), text_digest(self._seed, text)
        label = self._label(row["target"]) if self._by_label else 0
        words, normalized = len(text.split()), _hash(normalize(text))
        self._packed += PACK(number, digest, normalized, content, _hash(texts[-1]) & HALF, words, label)
        return digest, content

    @property
    def rows(self) -> NDArray[Any]:
        """The records, as an array of `FIELDS`."""
        return np.frombuffer(self._packed, FIELDS)

    def labels(self) -> NDArray[np.uint16]:
        """Return each row's label as an index of the sorted `names`; `len(names)` for labels beyond `MOST_NAMES`."""
        ranks = {name: i for i, name in enumerate(sorted(self.names))}
        by_number = np.array([*(ranks[name] for name in self.names), len(ranks)], np.uint16)
        return np.asarray(by_number[self.rows["label"]])

    def _label(self, label: str) -> int:
        if label not in self.names and len(self.names) < MOST_NAMES:
            self.names[label] = len(self.names)
        return self.names.get(label, len(self.names))


def find_repeats(contents: Digests) -> tuple[Indices, Indices]:
    """Return the rows whose content an earlier row has, in order, and for each the first row that has it."""
    order, starts = _group(contents)
    firsts = np.repeat(order[starts], np.diff(starts, append=len(order)))
    repeats = order != firsts
    later, first = order[repeats], firsts[repeats]
    by_number = np.argsort(later)
    return later[by_number], first[by_number]


def count_conflicts(texts: Digests, answers: NDArray[np.uint32]) -> int:
    """Count the texts with more than one answer."""
    order, starts = _group(texts)
    if not len(order):
        return 0
    ordered = answers[order]
    return int((np.minimum.reduceat(ordered, starts) != np.maximum.reduceat(ordered, starts)).sum())


def _group(digests: Digests) -> tuple[Indices, Indices]:
    """Return the indices that sort digests, equal ones in order, and the start of each group of equal ones.

    `np.unique` would return the same with its inverse, in twice the memory.
    """
    order = np.argsort(digests, kind="stable")
    ranked = digests[order]
    return order, np.flatnonzero(np.diff(ranked, prepend=~ranked[:1]))


def _hash(value: object) -> int:
    """Return Python's own hash, which has a new key in each process: nobody can make a file of rows that collide."""
    return hash(value) & WHOLE


class Sample:
    """A sample of different rows: those with the smallest priorities that fit (bottom-k; Cohen and Kaplan, 2007).

    A priority is the half of a question's digest that `split` does not use first. After a row is dropped, none with a
    higher priority is taken, so that long rows are as likely to be in the sample as short ones.
    """

    def __init__(self, rows: int = SAMPLED_ROWS, characters: int = SAMPLED_CHARACTERS) -> None:
        self._most, self._room, self._bound = rows, characters, HALF + 1
        self._heap: list[tuple[int, int, Row]] = []
        self._contents: set[int] = set()

    def add(self, number: int, digest: int, content: int, row: Row) -> None:
        """Offer a row, which may replace others."""
        priority = digest & HALF
        if priority >= self._bound or content in self._contents:
            return
        self._contents.add(content)
        heapq.heappush(self._heap, (-priority, -number, row))
        self._room -= count_characters(row)
        while len(self._heap) > self._most or (self._room < 0 and len(self._heap) > 1):
            dropped, _, out = heapq.heappop(self._heap)
            self._room += count_characters(out)
            self._bound = -dropped

    @property
    def rows(self) -> list[Row]:
        """The rows, in the order of the file."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: -entry[1])]


class _Reader:
    """Reads a file, once or again, and turns its records into rows."""

    source: Source
    mapping: dict[str, str]
    guesses: tuple[str, ...]
    """The open file, the column for each part of a row, and warnings about guesses; known once `read` has begun."""

    def __init__(
        self, path: Path, answers: Answers, columns: Columns, given: Mapping[str, str], limits: Limits
    ) -> None:
        self.path, self._answers, self._columns, self._given, self._limits = path, answers, columns, given, limits

    def read(self, watch: Watch = lambda rows, share: None) -> Iterator[NumberedRow]:
        """Yield every record with its row."""
        chat = bool(self._columns.messages) and self._answers == "text"
        with open_source(self.path, self._limits) as source:
            self.source = source
            self.mapping, self.guesses = choose_columns(
                title(self.path), source.columns, self._answers, self._columns, self._given
            )
            for number, record in enumerate(source.read(columns_read(source.columns, self.mapping)), 1):
                if number > self._limits.rows:
                    why = f"The limit is {self._limits.rows:,}."
                    raise DataError(f"{self.path.name} has too many rows.", why, "Use a part of it.")
                if number % WATCHED_ROWS == 0:
                    watch(number, source.progress())
                row: Row | str = record
                if isinstance(record, dict):
                    try:
                        row = to_row(record, self.mapping, self._answers, chat, self._limits.cell)
                    except RowProblem as problem:
                        row = str(problem)
                yield number, record, row


@dataclass(frozen=True)
class Table:
    """The report on a file that was read, and digests of each usable row."""

    report: Report
    texts: Digests
    """`text_digest` of each usable row's question."""
    normalized: Digests
    """Digest of each usable row's normalized question, which differs between processes."""
    labels: NDArray[np.uint16]
    """Label of each usable row, as an index of the sorted ones; 0 where answers are texts."""
    usable: Mask
    """Mask of the rows that `keep` was called with: False for repeats of an earlier one."""
    _reader: _Reader
    _repeats: tuple[NDArray[np.uint32], NDArray[np.uint32]]
    """Numbers of the records that repeat an earlier one, ascending, and the numbers of those."""

    def contains(self, texts: Digests, normalized: Digests) -> Mask:
        """Return the mask of other rows, given by digests, whose question is in this table in any form."""
        return np.isin(texts, self.texts) | np.isin(normalized, self.normalized)

    def bad_rows(self) -> Iterator[tuple[BadRow, Record]]:
        """Yield each record that is left out, reading the file again; raises `DataError` where that has changed."""
        repeats, number = zip(*self._repeats, strict=True), 0
        later, first = next(repeats, (0, 0))
        for number, record, row in self._reader.read():
            if isinstance(row, str):
                yield BadRow(number, row), record
            elif number == later:
                yield _repeat(number, first), record
                later, first = next(repeats, (0, 0))
        if later or number != self.report.rows:
            raise changed(self._reader.path)


def read_table(
    path: Path,
    answers: Answers,
    columns: Columns,
    mapping: Mapping[str, str] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    seed: int = 0,
    watch: Watch = lambda rows, share: None,
    sample: Sample | None = None,
    keep: Callable[[Row], object] = lambda row: None,
    check: Callable[[Report, Answers], None] = check_learnable,
) -> Table:
    """Read `path` for a tab that learns from `columns`, whose names are guessed where the file lacks them.

    `mapping` (part of a row -> column of the file) is the user's choice and taken as it is. `seed` is that of the
    split. `sample` is filled; `keep` is called with each row, repeats included; `check` may refuse the report.
    Raises `DataError` for a file that cannot be read or learned from.
    """
    reader, bad = _Reader(path, answers, columns, mapping or {}, limits), BadRows()
    digests = RowDigests(seed, by_label=answers == "label")
    total, shown = _collect(reader.read(watch), digests, bad, sample, keep)
    fields, labels = digests.rows, digests.labels()
    later, first = find_repeats(fields["content"])
    repeats, usable = (fields["number"][later], fields["number"][first]), np.ones(len(fields), bool)
    usable[later] = False
    for pair in zip(*repeats, strict=True):
        bad.add(_repeat(*pair))
    texts, normalized, labels = fields["text"][usable], fields["normalized"][usable], labels[usable]
    words = fields["words"][usable] if len(texts) else np.zeros(1)
    report = Report(
        file=title(path),
        format=reader.source.format,
        rows=total,
        usable=len(texts),
        columns=reader.source.columns,
        mapping=reader.mapping,
        bad=tuple(bad.first),
        reasons=bad.reasons,
        duplicates=len(repeats[0]),
        conflicts=count_conflicts(texts, fields["answer"][usable]),
        restated=len(np.unique(texts)) - len(np.unique(normalized)),
        labels=by_count(dict(zip(sorted(digests.names), np.bincount(labels).tolist(), strict=False))),
        words={"median": round(float(np.median(words))), "max": int(words.max())},
        sample=tuple(shown),
    )
    report = replace(report, warnings=(*reader.source.warnings, *reader.guesses, *find_warnings(report)))
    check(report, answers)
    return Table(report, texts, normalized, labels, usable, reader, repeats)


def _collect(
    rows: Iterator[NumberedRow],
    digests: RowDigests,
    bad: BadRows,
    sample: Sample | None,
    keep: Callable[[Row], object],
) -> tuple[int, list[Row]]:
    """Digest every row; returns the number of records, and the first `SHOWN_ROWS` different rows."""
    number, shown = 0, dict[int, Row]()
    for number, _, row in rows:
        if isinstance(row, str):
            bad.add(BadRow(number, row))
            continue
        digest, content = digests.add(number, row)
        if sample:
            sample.add(number, digest, content, row)
        if len(shown) < SHOWN_ROWS:
            shown.setdefault(content, row)
        keep(row)
    return number, list(shown.values())


def _repeat(number: int, earlier: int) -> BadRow:
    return BadRow(int(number), f"duplicate of row {earlier}")


def changed(path: Path) -> DataError:
    """Return the error for a file that another program wrote to while it was read."""
    return DataError(f"{path.name} changed while it was read.", "", "Start again when nothing writes to it.")
