"""Rows to train on, from a file of any size: read and checked row by row, reported, and read again as they are needed.

The rows themselves are never held in memory together, only a few numbers of each, and a sample.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from errors import DataError
from tasks import Columns
from training.data.digests import Digests, Indices, RowDigests
from training.data.files.formats import Limits
from training.data.files.readers import Record, Source, open_source
from training.data.files.selection import title
from training.data.inspect.report import SAMPLE, BadRow, BadRows, Report, by_count, check_learnable, find_warnings
from training.data.rows import Answers, Row, RowProblem, choose_columns, columns_read, texts_of, to_row

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


__all__ = ["BadRow", "Limits", "Report", "Row", "Table", "read_table"]

WATCHED = 1_000
"""Rows after which it is told how far the reading is."""
_Read = tuple[Record, Row | RowProblem]
NO_MAPPING: Mapping[str, str] = {}


@dataclass(frozen=True)
class _File:
    """How the rows of a file are read, the same each time."""

    path: Path
    answers: Answers
    columns: Columns
    given: Mapping[str, str]
    limits: Limits

    @contextmanager
    def open(self) -> Iterator[tuple[Source, dict[str, str], tuple[str, ...]]]:
        """The open file, the column for each part of a row, and warnings about guesses."""
        with open_source(self.path, self.limits) as source:
            yield source, *choose_columns(title(self.path), source.columns, self.answers, self.columns, self.given)

    def rows(self, source: Source, mapping: dict[str, str]) -> Iterator[_Read]:
        """Every record of the file, and its row or why it cannot be learned from."""
        chat = bool(self.columns.messages) and self.answers == "text"
        for record in source.read(columns_read(source.columns, mapping)):
            try:
                yield record, _made(record, mapping, self.answers, chat, self.limits.cell)
            except RowProblem as problem:
                yield record, problem


@dataclass(frozen=True)
class Table:
    """A file of rows that was read once: its report, a few numbers for each usable row, and how to read it again."""

    report: Report
    texts: Digests
    """Of each usable row, what `training.data.split` goes by."""
    plain: Digests
    """Of each usable row, what its text is known by but for case, punctuation and white space; in this process only."""
    labels: NDArray[np.uint16]
    """Of each usable row, the place of its label among the sorted ones; 0 where answers are texts."""
    _file: _File
    _usable: NDArray[np.bool_]
    """Of each row of the file, whether it is usable."""
    _repeated: Indices
    """Of each row that repeats an earlier one, in order, the number of that."""

    def rows(self) -> Iterator[Row]:
        """The usable rows, read from the file again; raises `DataError` where that has changed meanwhile."""
        return (row for _, row in self._read() if isinstance(row, dict))

    def bad_rows(self) -> Iterator[tuple[BadRow, Record | None]]:
        """Every row that is left out and its cells, read from the file again, however many the report names.

        A row without cells, because it could not be cut into them, has None.
        """
        for record, row in self._read():
            if isinstance(row, BadRow):
                yield row, None if isinstance(record, str) else record

    def asked_in(self, other: Table) -> NDArray[np.bool_]:
        """Of each usable row, whether `other` asks it too, exactly or but for case, punctuation and white space."""
        return np.isin(self.texts, other.texts) | np.isin(self.plain, other.plain)

    def restated(self) -> int:
        """Usable rows that ask what an earlier one asks in the same words, but not letter by letter."""
        _, first = np.unique(self.texts, return_index=True)
        return len(first) - len(np.unique(self.plain[first]))

    def _read(self) -> Iterator[tuple[Record, Row | BadRow]]:
        """Each record of the file, and its row or why it is left out."""
        number, repeated = 0, iter(self._repeated)
        with self._file.open() as (source, mapping, _):
            for number, (record, row) in enumerate(self._file.rows(source, mapping), 1):
                if number > len(self._usable) or (isinstance(row, RowProblem) and self._usable[number - 1]):
                    raise changed(self._file.path)
                if isinstance(row, RowProblem):
                    yield record, BadRow(number, str(row))
                elif self._usable[number - 1]:
                    yield record, row
                elif earlier := int(next(repeated, 0)):
                    yield record, _repeat(number, earlier)
                else:
                    raise changed(self._file.path)
        if number < len(self._usable):
            raise changed(self._file.path)


def read_table(
    path: Path,
    answers: Answers,
    columns: Columns,
    mapping: Mapping[str, str] = NO_MAPPING,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    seed: int = 0,
    watch: Callable[[int, float], None] = lambda rows, part: None,
    sample: Sample | None = None,
    check: Callable[[Report, Answers], None] = check_learnable,
) -> Table:
    """The rows of `path` for a tab that learns from `columns`; a name that the file lacks is guessed.

    `mapping` (part of a row -> column of the file) is the user's own choice and is taken as it is. `seed` is that of
    the split; `watch` is told how many rows were read and how much of the file, 0..1. `sample` is filled.
    `check` decides whether the file is of use, by raising `DataError`.
    Raises `DataError` for a file that cannot be read or learned from.
    """
    file = _File(path, answers, columns, mapping, limits)
    with file.open() as (source, chosen, guesses):
        rows = _counted(file.rows(source, chosen), file, source, watch)
        found = _collect(rows, RowDigests(seed), answers == "label", sample or Sample(SAMPLE))
    usable, digests, total = found.usable, found.digests, len(found.made)
    counts = np.bincount(digests.labels(usable), minlength=len(digests.names)).tolist()
    labels = by_count(dict(zip(sorted(digests.names), counts, strict=False)))
    conflicts, left_out = digests.conflicts(usable), total - int(usable.sum())
    report = Report(
        file=title(path),
        format=source.format,
        rows=total,
        usable=total - left_out,
        columns=source.columns,
        mapping=chosen,
        bad=found.bad.first,
        reasons=found.bad.reasons,
        duplicates=len(found.repeated),
        conflicts=conflicts,
        labels=labels,
        words=digests.words(usable),
        sample=tuple(found.sample),
        warnings=(*source.warnings, *guesses, *find_warnings(labels, left_out, total, conflicts)),
    )
    check(report, answers)
    made = found.made.copy()
    made[made] = usable
    return Table(
        report, digests.texts(usable), digests.plain(usable), digests.labels(usable), file, made, found.repeated
    )


@dataclass(frozen=True)
class _Found:
    """What one pass over a file leaves in memory."""

    digests: RowDigests
    """Of each row that could be made."""
    made: NDArray[np.bool_]
    """Of each row of the file, whether it could be made."""
    usable: NDArray[np.bool_]
    """Of each row that could be made, whether it repeats no earlier one."""
    bad: BadRows
    repeated: Indices
    """Of each row that repeats an earlier one, in order, the number of that."""
    sample: list[Row]


def _collect(rows: Iterator[_Read], digests: RowDigests, by_label: bool, sample: Sample) -> _Found:
    made, bad = bytearray(), BadRows()
    shown: dict[int, Row] = {}
    for _, row in rows:
        made.append(isinstance(row, dict))
        if isinstance(row, RowProblem):
            bad.add(BadRow(len(made), str(row)))
            continue
        digest, content = digests.add(row, by_label)
        if len(shown) < SAMPLE:
            shown.setdefault(content, row)
        sample.add(len(made), digest, content, row)
    whole = np.frombuffer(bytes(made), bool)
    numbers = np.flatnonzero(whole) + 1
    later, first = digests.repeats()
    usable = np.ones(len(numbers), bool)
    usable[later] = False
    for number, earlier in zip(numbers[later], numbers[first], strict=True):
        bad.add(_repeat(int(number), int(earlier)))
    return _Found(digests, whole, usable, bad, numbers[first], list(shown.values()))


def _counted(
    rows: Iterator[_Read], file: _File, source: Source, watch: Callable[[int, float], None]
) -> Iterator[_Read]:
    """The same rows, as many as the limit allows; told to `watch`."""
    for number, row in enumerate(rows, 1):
        if number > file.limits.rows:
            why = f"The limit is {file.limits.rows:,}."
            raise DataError(f"{file.path.name} has too many rows.", why, "Use a part of it.")
        if number % WATCHED == 0:
            watch(number, source.part())
        yield row


def _made(record: Record, mapping: Mapping[str, str], answers: Answers, chat: bool, cell: int) -> Row:
    if isinstance(record, str):
        raise RowProblem(record)
    return to_row(record, mapping, answers, chat, cell)


def _repeat(number: int, earlier: int) -> BadRow:
    return BadRow(number, f"duplicate of row {earlier}")


def changed(path: Path) -> DataError:
    """What is said of a file that is not what it was a moment ago."""
    return DataError(f"{path.name} changed while it was read.", "", "Start again when nothing writes to it.")
