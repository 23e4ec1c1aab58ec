"""What a file of rows holds and what was left out of it, and whether it can be learned from at all."""

from __future__ import annotations

import json
import re
from bisect import insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from errors import DataError
from tasks import MOST_LABELS
from training.data.rows import Answers, Row

SAMPLE = 5
"""Rows that a report shows."""
FEWEST_ROWS = 8
"""Rows below which there is nothing to train on and hold out."""
MOST_BAD = 1_000
"""Bad rows that a report names; the others are counted."""
MOST_REASONS = 100
OTHER_REASONS = "another reason"
LATER = "later"
FEW_ROWS = 5
"""Rows of a label from which one is held out for sure."""


@dataclass(frozen=True)
class BadRow:
    """A row that is left out; `number` counts the rows of data from 1, without the line that names CSV columns."""

    number: int
    reason: str


@dataclass(frozen=True)
class Tokens:
    """How long rows are for a base, and what of them it learns. Lengths are in tokens before anything is cut."""

    rows: int
    """That were tokenized: all, or a seeded sample of a large file."""
    limit: int
    """The longest length that training was told, at most what the base takes."""
    edges: tuple[int, ...]
    """Of the histogram: bin i holds the rows of `edges[i]` up to, not including, `edges[i + 1]` tokens."""
    counts: tuple[int, ...]
    median: int
    p95: int
    longest: int
    mean: float
    learned_mean: float
    """Tokens of a row that are learned, after the cut; 1 for a label."""
    truncated: int
    """Of `rows`, those that are cut to `limit`, or left out because their answer would be."""


@dataclass(frozen=True)
class Rendered:
    """A row exactly as the model reads it, special tokens and all."""

    pieces: tuple[tuple[str, bool], ...]
    """Its text in order, each piece with whether it is learned; none where the row is left out."""
    answer: str = ""
    """What is learned, where it is no part of the text: a label, or the answer of an encoder-decoder."""
    cut: bool = False
    """Whether the text is cut to the longest length; where there are no pieces, the answer would have been."""


@dataclass(frozen=True)
class Pair:
    """Two rows that are nearly the same: their numbers, what they ask, and the share that they have in common."""

    numbers: tuple[int, int]
    texts: tuple[str, str]
    share: float
    """1.0 where only case, punctuation or white space differs."""


@dataclass(frozen=True)
class Near:
    """Rows that say nearly what an earlier one says. They are told, and stay."""

    rows: int
    """That were compared: all, or a seeded sample of a large file."""
    same: int
    """Of all usable rows, those that differ from an earlier one by case, punctuation or white space alone."""
    alike: int
    """Of `rows`, those that are nearly like an earlier one in their words."""
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class HeldOut:
    """A file of the user's own rows to compare on."""

    file: str
    rows: int
    usable: int
    known: int
    """Usable rows that can be compared on: of a classifier, those whose label there are rows to learn from."""
    unknown: dict[str, int]
    """Rows for each other label; most frequent first."""
    shared: int
    """Rows to train on that are asked there too, exactly or but for their form; they are not trained on."""
    examples: tuple[str, ...]
    """What some of them ask."""


@dataclass(frozen=True)
class Report:
    """A file of rows before anything trains on it."""

    file: str
    format: str
    rows: int
    usable: int
    columns: tuple[str, ...]
    mapping: dict[str, str]
    """The column of the file for each part of a row."""
    bad: tuple[BadRow, ...]
    """The first rows that are left out, at most `MOST_BAD`."""
    reasons: dict[str, int]
    """Rows that are left out for each kind of reason, as its first row puts it, most frequent first."""
    duplicates: int
    """Rows like an earlier one; they are left out too."""
    conflicts: int
    """Texts that have more than one target; their rows are usable."""
    labels: dict[str, int]
    """Usable rows for each label, most frequent first; empty for a tab that answers with text."""
    words: dict[str, int]
    """`median` and `max` words of what a row asks."""
    sample: tuple[Row, ...]
    warnings: tuple[str, ...]
    tokens: Tokens | None = None
    """None where none was asked for, or for the reason in `untokenized`."""
    untokenized: str = ""
    """Why `tokens` are missing; `LATER` where the base is not on this disk yet."""
    rendered: tuple[Rendered, ...] = ()
    near: Near | None = None
    held_out: HeldOut | None = None

    @property
    def left_out(self) -> int:
        """Rows that cannot be used."""
        return self.rows - self.usable

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        fields["bad"] = tuple(BadRow(**bad) for bad in fields["bad"])
        if tokens := fields.get("tokens"):
            fields["tokens"] = Tokens(**tokens | {name: tuple(tokens[name]) for name in ("edges", "counts")})
        fields["rendered"] = tuple(_rendered(row) for row in fields.get("rendered", ()))
        if near := fields.get("near"):
            fields["near"] = Near(**near | {"pairs": tuple(_pair(pair) for pair in near["pairs"])})
        if other := fields.get("held_out"):
            fields["held_out"] = HeldOut(**other | {"examples": tuple(other["examples"])})
        return cls(**fields | {name: tuple(fields[name]) for name in ("columns", "sample", "warnings")})


class BadRows:
    """The first bad rows, and how many there are for each kind of reason."""

    def __init__(self) -> None:
        self._first: list[BadRow] = []
        self._kinds: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, bad: BadRow) -> None:
        """Count a row that is left out."""
        if len(self._first) < MOST_BAD or bad.number < self._first[-1].number:
            insort(self._first, bad, key=lambda other: other.number)
            del self._first[MOST_BAD:]
        kind = re.sub(r"\d[\d,]*", "#", bad.reason)
        # A reason may quote the file: however many kinds that makes, they are told in little room.
        if len(self._kinds) < MOST_REASONS:
            self._kinds.setdefault(kind, bad.reason)
        self._counts[self._kinds.get(kind, OTHER_REASONS)] += 1

    @property
    def first(self) -> tuple[BadRow, ...]:
        """The first of them by their number, in whatever order they were added."""
        return tuple(self._first)

    @property
    def reasons(self) -> dict[str, int]:
        """Rows for each kind of reason, most frequent first."""
        return dict(self._counts.most_common())


def _rendered(fields: dict[str, Any]) -> Rendered:
    return Rendered(**fields | {"pieces": tuple((text, learned) for text, learned in fields["pieces"])})


def _pair(fields: dict[str, Any]) -> Pair:
    return Pair(**fields | {name: tuple(fields[name]) for name in ("numbers", "texts")})


def by_count(labels: dict[str, int]) -> dict[str, int]:
    """The same, most frequent first."""
    return dict(sorted(labels.items(), key=lambda item: (-item[1], item[0])))


def find_warnings(labels: dict[str, int], bad: int, rows: int, conflicts: int) -> tuple[str, ...]:
    """What does not stop a training but deserves a look."""
    once = [label for label, count in labels.items() if count == 1]
    few = [label for label, count in labels.items() if 1 < count < FEW_ROWS]
    found = (
        (bool(once), f"{_count(len(once), 'label')} one row only, so nothing to hold out: {_quoted(once)}."),
        (bool(few), f"{_count(len(few), 'label')} fewer than {FEW_ROWS} rows, too few to learn well: {_quoted(few)}."),
        (bool(labels) and conflicts > 0, f"{_count(conflicts, 'text')} more than one label."),
        (bad * 5 > rows, f"{bad:,} of {rows:,} rows are left out."),
        (bool(labels) and max(labels.values(), default=0) > 20 * min(labels.values(), default=1),
         f"The most frequent label has over 20 times the rows of the rarest: {_quoted(list(labels)[-1:])}."),
    )  # fmt: skip
    return tuple(text for applies, text in found if applies)


def check_learnable(report: Report, answers: Answers) -> None:
    """Raise `DataError` if no useful version can come of these rows."""
    file, labels, usable = report.file, report.labels, report.usable
    if report.rows == 0:
        raise DataError(
            f"{file} has no rows.", "It has only the names of its columns.", "Put at least eight rows into it."
        )
    if usable == 0:
        next = "Correct the rows, or choose other columns with `--columns text=COLUMN,target=COLUMN`."
        raise DataError(f"{file} has no usable row.", _reasons(report), next)
    if usable < FEWEST_ROWS:
        what = f"{file} has only {_rows(usable)} to learn from."
        raise DataError(what, _reasons(report), f"Add rows: {FEWEST_ROWS} is the least, 50 or more teach something.")
    if answers == "text":
        return
    column = report.mapping["target"]
    if len(labels) == 1:
        why = f"All {usable:,} usable rows are labelled {_quoted(list(labels))}."
        raise DataError(f"{file} has one label only.", why, "Add rows with another label.")
    if len(labels) == usable or len(labels) > MOST_LABELS:
        what = f"The column {column!r} of {file} looks like free text."
        more = " or more" if sum(labels.values()) < usable else ""
        why = (
            f"Its {usable:,} rows have {len(labels):,}{more} different labels; at most {MOST_LABELS} can be told apart."
        )
        raise DataError(what, why, "Choose the column of labels, or a tab that answers with text.")


def check_asks(report: Report, answers: Answers) -> None:
    """Raise `DataError` if nothing can be compared on these rows, which are not learned from."""
    if not report.usable:
        next = "Correct the rows: they need the columns of those to train on."
        raise DataError(f"{report.file} has no usable row.", _reasons(report), next)


def nothing_known(report: Report, labels: Sequence[str]) -> DataError:
    """What is said of a file to compare on whose labels are all others than those that are learned."""
    why = f"Its labels are {_quoted(list(report.labels))}; those to learn are {_quoted(labels)}."
    return DataError(f"No row of {report.file} has a label that is learned.", why, "Use the same labels in both files.")


def _reasons(report: Report) -> str:
    """The most common reasons for leaving rows out, each with how many rows it explains."""
    common = "; ".join(f"{reason} ({_rows(count)})" for reason, count in list(report.reasons.items())[:3])
    return f"Left out: {common}." if common else ""


def _rows(count: int) -> str:
    return f"{count:,} row" + "s" * (count != 1)


def _count(count: int, noun: str) -> str:
    return f"1 {noun} has" if count == 1 else f"{count:,} {noun}s have"


def _quoted(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
