"""Read a file of rows once: check every record, find repeats and conflicts, report; in little memory whatever the size.

No text stays in memory but that of a sample. Each row leaves some 38 bytes of numbers: 64-bit digests, by which equal
texts are found. Two different texts of 50 million share one with a chance of 1 in 15,000, which costs one row.
"""

from __future__ import annotations

import hashlib
import heapq
import string
import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from training.data.rows import Answers, Row, RowProblem, asked, choose_columns, columns_read, texts_of, to_row

Digests = NDArray[np.uint64]
Indices = NDArray[np.int64]
Mask = NDArray[np.bool_]

SAMPLED_ROWS, SAMPLED_CHARACTERS = 2_000, 2_000_000
"""Most rows and characters of a sample: what a tokenizer takes a second or two for."""
WATCHED_ROWS = 1_000
"""Rows between two calls of `watch`."""
MOST_NAMES = 1_000
"""Different labels that are counted; a file with more is refused, and their names could fill the memory."""
HALF, WHOLE = 2**32 - 1, 2**64 - 1
FIELDS = np.dtype(
    {
        "names": ("number", "text", "normalized", "content", "answer", "words", "label"),
        "formats": ("<u4", "<u8", "<u8", "<u8", "<u4", "<u4", "<u2"),
    }
)
"""Numbers that stay of a row: its record's number, digests of its texts, words of its question, number of its label."""
PACK = struct.Struct("<IQQQIIH").pack
"""Pack one record of `FIELDS`."""

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
    """Return a text without case, punctuation and repeated white space; the text itself where that leaves nothing."""
    if text.isascii():
        words = text.encode().translate(ASCII).split()
    else:
        words = [w.encode() for w in unicodedata.normalize("NFKC", text).casefold().translate(SPACES).split()]
    return b" ".join(words) or text.strip().encode()


def text_digest(seed: int, text: str) -> int:
    """Return 64 evenly spread bits that depend on the seed and the stripped text alone; the same on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed}\n{text.strip()}".encode()).digest()[:8])


def grouped(digests: NDArray[Any]) -> tuple[Indices, Indices]:
    """Return the indices that sort `digests`, equal ones in their order, and where each group of equal ones starts."""
    order = np.argsort(digests, kind="stable")
    ranked = digests[order]
    return order, np.flatnonzero(np.concatenate([np.ones(min(1, len(order)), bool), ranked[1:] != ranked[:-1]]))


class RowDigests:
    """A record of `FIELDS` for each row that was added."""

    def __init__(self, seed: int, by_label: bool) -> None:
        self._seed, self._by_label, self._packed = seed, by_label, bytearray()
        self.names: dict[str, int] = {}
        """Number of each label, in the order in which they were met."""

    def add(self, number: int, row: Row) -> tuple[int, int]:
        """Append the row of the record `number`; returns the digests of its question and of its whole content."""
        text = asked(row)
        answer = (row["messages"][-1]["content"] if "messages" in row else row["target"]).strip()
        content, digest = _hash(_content(row)), text_digest(self._seed, text)
        label = self._label(row["target"]) if self._by_label else 0
        words, normalized = len(text.split()), _hash(normalize(text))
        self._packed += PACK(number, digest, normalized, content, _hash(answer) & HALF, words, label)
        return digest, content

    @property
    def rows(self) -> NDArray[Any]:
        """The records, as an array of `FIELDS`."""
        return np.frombuffer(self._packed, FIELDS)

    def labels(self) -> NDArray[np.uint16]:
        """Return the label of each row, as its index among the sorted `names`; `len(names)` for one that has none."""
        place = {name: i for i, name in enumerate(sorted(self.names))}
        places = np.array([*(place[name] for name in self.names), len(place)], np.uint16)
        return np.asarray(places[self.rows["label"]])

    def _label(self, label: str) -> int:
        if label not in self.names and len(self.names) < MOST_NAMES:
            self.names[label] = len(self.names)
        return self.names.get(label, len(self.names))


def find_repeats(contents: Digests) -> tuple[Indices, Indices]:
    """Return the rows whose content an earlier row has, in order, and for each the first row that has it."""
    order, starts = grouped(contents)
    firsts = np.repeat(order[starts], np.diff(starts, append=len(order)))
    repeats = order != firsts
    later, first = order[repeats], firsts[repeats]
    by_number = np.argsort(later)
    return later[by_number], first[by_number]


def count_conflicts(texts: Digests, answers: NDArray[np.uint32]) -> int:
    """Count the texts with more than one answer."""
    order, starts = grouped(texts)
    if not len(order):
        return 0
    ordered = answers[order]
    return int((np.minimum.reduceat(ordered, starts) != np.maximum.reduceat(ordered, starts)).sum())


def _content(row: Row) -> tuple[str, ...]:
    messages = [part for m in row.get("messages", ()) for part in (m["role"], m["content"].strip())]
    return tuple(messages) or (row["text"].strip(), row["target"].strip())


def _hash(value: object) -> int:
    """Return Python's own hash: keyed anew in each process, so that no file can be made of rows that share one."""
    return hash(value) & WHOLE


class Sample:
    """The rows with the smallest priorities that fit (bottom-k sampling; Cohen and Kaplan, 2007), repeats left out.

    A priority is half of a question's digest, the half that `split` does not look at first. Nothing above the priority
    of a row that was dropped is taken later, so that long rows are as likely to be in the sample as short ones.
    """

    def __init__(self, rows: int = SAMPLED_ROWS, characters: int = SAMPLED_CHARACTERS) -> None:
        self._most, self._room, self._bound = rows, characters, HALF + 1
        self._heap: list[tuple[int, int, Row]] = []
        self._contents: set[int] = set()

    def add(self, number: int, digest: int, content: int, row: Row) -> None:
        """Offer a row; it may push out others."""
        priority = digest & HALF
        if priority >= self._bound or content in self._contents:
            return
        self._contents.add(content)
        heapq.heappush(self._heap, (-priority, -number, row))
        self._room -= _characters(row)
        while len(self._heap) > self._most or (self._room < 0 and len(self._heap) > 1):
            dropped, _, out = heapq.heappop(self._heap)
            self._room += _characters(out)
            self._bound = -dropped

    @property
    def rows(self) -> list[Row]:
        """The rows, in the order of the file."""
        return [row for _, _, row in sorted(self._heap, key=lambda entry: -entry[1])]


def _characters(row: Row) -> int:
    return sum(map(len, texts_of(row)))


@dataclass(frozen=True)
class _File:
    """A file and how its records become rows."""

    path: Path
    answers: Answers
    columns: Columns
    given: Mapping[str, str]
    limits: Limits

    @contextmanager
    def open(self) -> Iterator[tuple[Source, dict[str, str], tuple[str, ...]]]:
        """Yield the open file, the column for each part of a row, and warnings about guesses."""
        with open_source(self.path, self.limits) as source:
            yield source, *choose_columns(title(self.path), source.columns, self.answers, self.columns, self.given)

    def rows(
        self, source: Source, mapping: dict[str, str], watch: Callable[[int, float], object] = lambda rows, share: None
    ) -> Iterator[NumberedRow]:
        """Yield every record with its row."""
        chat = bool(self.columns.messages) and self.answers == "text"
        for number, record in enumerate(source.read(columns_read(source.columns, mapping)), 1):
            if number > self.limits.rows:
                why = f"The limit is {self.limits.rows:,}."
                raise DataError(f"{self.path.name} has too many rows.", why, "Use a part of it.")
            if number % WATCHED_ROWS == 0:
                watch(number, source.progress())
            if isinstance(record, str):
                yield number, record, record
                continue
            try:
                yield number, record, to_row(record, mapping, self.answers, chat, self.limits.cell)
            except RowProblem as problem:
                yield number, record, str(problem)


@dataclass(frozen=True)
class Table:
    """A file of rows that was read: its report, and a few numbers for each usable row."""

    report: Report
    texts: Digests
    """`text_digest` of each usable row's question."""
    normalized: Digests
    """Digest of each usable row's normalized question; not the same in another process."""
    labels: NDArray[np.uint16]
    """Label of each usable row, as its index among the sorted ones; 0 where answers are texts."""
    usable: Mask
    """Whether each row that `keep` was called with is usable: it repeats no earlier one."""
    _file: _File
    _repeats: tuple[NDArray[np.uint32], NDArray[np.uint32]]
    """Numbers of the records that repeat an earlier one, ascending, and the numbers of those."""

    def asked(self, texts: Digests, normalized: Digests) -> Mask:
        """Return for each of some rows, given by digests, whether a row here has its question, form aside."""
        return np.isin(texts, self.texts) | np.isin(normalized, self.normalized)

    def bad_rows(self) -> Iterator[tuple[BadRow, Record]]:
        """Yield each record that is left out, reading the file again; raises `DataError` where that has changed."""
        repeats, number = zip(*self._repeats, strict=True), 0
        later, first = next(repeats, (0, 0))
        with self._file.open() as (source, mapping, _):
            for number, record, row in self._file.rows(source, mapping):
                if isinstance(row, str):
                    yield BadRow(number, row), record
                elif number == later:
                    yield _repeat(number, first), record
                    later, first = next(repeats, (0, 0))
        if later or number != self.report.rows:
            raise changed(self._file.path)


def read_table(
    path: Path,
    answers: Answers,
    columns: Columns,
    mapping: Mapping[str, str] | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    seed: int = 0,
    watch: Callable[[int, float], object] = lambda rows, share: None,
    sample: Sample | None = None,
    keep: Callable[[Row], object] = lambda row: None,
    check: Callable[[Report, Answers], None] = check_learnable,
) -> Table:
    """Read `path` for a tab that learns from `columns`, whose names are guessed where the file lacks them.

    `mapping` (part of a row -> column of the file) is the user's choice and taken as it is. `seed` is that of the
    split. `watch` is called with the number of records read and the share of the file, 0..1; `sample` is filled; `keep`
    is called with each row that can be made, repeats included. `check` may refuse the report.
    Raises `DataError` for a file that cannot be read or learned from.
    """
    file, bad = _File(path, answers, columns, mapping or {}, limits), BadRows()
    digests = RowDigests(seed, by_label=answers == "label")
    with file.open() as (source, chosen, guesses):
        total, shown = _collect(file.rows(source, chosen, watch), digests, bad, sample, keep)
    fields, labels = digests.rows, digests.labels()
    usable, repeats = _leave_out_repeats(fields, bad)
    texts, normalized, labels = fields["text"][usable], fields["normalized"][usable], labels[usable]
    words = fields["words"][usable] if len(texts) else np.zeros(1)
    report = Report(
        file=title(path),
        format=source.format,
        rows=total,
        usable=len(texts),
        columns=source.columns,
        mapping=chosen,
        bad=bad.first,
        reasons=bad.reasons,
        duplicates=len(repeats[0]),
        conflicts=count_conflicts(texts, fields["answer"][usable]),
        restated=len(np.unique(texts)) - len(np.unique(normalized)),
        labels=by_count(dict(zip(sorted(digests.names), np.bincount(labels).tolist(), strict=False))),
        words={"median": round(float(np.median(words))), "max": int(words.max())},
        sample=tuple(shown),
        warnings=(*source.warnings, *guesses),
    )
    report = replace(report, warnings=(*report.warnings, *find_warnings(report)))
    check(report, answers)
    return Table(report, texts, normalized, labels, usable, file, repeats)


def _leave_out_repeats(
    fields: NDArray[np.void], bad: BadRows
) -> tuple[NDArray[np.bool_], tuple[NDArray[np.uint32], NDArray[np.uint32]]]:
    """Add rows that repeat an earlier one to `bad`; returns the mask of the others, and the numbers of both."""
    later, first = find_repeats(fields["content"])
    usable = np.ones(len(fields), bool)
    usable[later] = False
    repeats = fields["number"][later], fields["number"][first]
    for pair in zip(*repeats, strict=True):
        bad.add(_repeat(*pair))
    return usable, repeats


def _collect(
    rows: Iterator[NumberedRow],
    digests: RowDigests,
    bad: BadRows,
    sample: Sample | None,
    keep: Callable[[Row], object],
) -> tuple[int, list[Row]]:
    """Take in every row; returns the number of records, and the first rows of different content."""
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
    """Return the refusal of a file that another program wrote to while it was read."""
    return DataError(f"{path.name} changed while it was read.", "", "Start again when nothing writes to it.")
