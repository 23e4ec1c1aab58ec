"""The report on a file of rows: its contents, the rows that are left out, and whether it can be learned from at all."""

from __future__ import annotations

import json
import re
from bisect import insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from pydantic import TypeAdapter

from errors import DataError
from tasks import MOST_LABELS
from training.data.rows import Answers, Row, quoted

SHOWN_ROWS = 5
"""Rows that a report shows."""
FEWEST_ROWS = 8
"""Rows below which there is nothing to train on and hold out."""
MOST_BAD = 1_000
"""Bad rows that a report lists; the others are counted."""
MOST_REASONS = 100
"""Kinds of reasons that are counted apart, because a reason may quote the file."""
OTHER_REASONS = "another reason"
LATER = "later"
"""`Report.untokenized` where the base is not on this disk yet."""
LABEL_ROWS = 5
"""Rows from which a label has at least one held out."""


@dataclass(frozen=True)
class BadRow:
    """A record that is left out; `number` counts records from 1, without the line that names CSV columns."""

    number: int
    reason: str


@dataclass(frozen=True)
class TokenLengths:
    """Lengths of rows in tokens of a base, before anything is cut, and how much of them is learned."""

    rows: int
    """Tokenized rows: all, or a seeded sample of a large file."""
    limit: int
    """The longest length of the training, at most that of the base."""
    edges: tuple[int, ...]
    """Edges of the histogram: bin i holds the rows of `edges[i]` up to, not including, `edges[i + 1]` tokens."""
    counts: tuple[int, ...]
    median: int
    p95: int
    longest: int
    mean: float
    learned_mean: float
    """Mean of the tokens learned per row, after the cut; 1 for a label."""
    truncated: int
    """Rows that are cut to `limit`, or left out because their answer would be."""


@dataclass(frozen=True)
class Rendered:
    """A row exactly as the model reads it, special tokens included."""

    pieces: tuple[tuple[str, bool], ...]
    """The text in order, each piece with whether it is learned; none where the row is left out."""
    answer: str = ""
    """The learned text that is no part of `pieces`: a label, or the answer of an encoder-decoder."""
    cut: bool = False
    """True for a text that is cut to the longest length; without pieces, the answer would have been cut."""


@dataclass(frozen=True)
class HeldOut:
    """The report on a file of the user's own rows to compare on."""

    file: str
    rows: int
    usable: int
    known: int
    """Usable rows to compare on: all, or those whose label is among the labels to train on."""
    unknown: dict[str, int]
    """Rows for each other label; most frequent first."""
    shared: int
    """Rows to train on whose question is also in this file, or differs in form alone; they are not trained on."""
    examples: tuple[str, ...]
    """Some questions of this file that are shared."""


@dataclass(frozen=True)
class Report:
    """Facts about a file of rows before anything trains on it."""

    file: str
    format: str
    rows: int
    usable: int
    columns: tuple[str, ...] = ()
    mapping: dict[str, str] = field(default_factory=dict)
    """The column of the file for each part of a row."""
    bad: tuple[BadRow, ...] = ()
    """The first records that are left out, at most `MOST_BAD`."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Records that are left out for each kind of reason, in the words of the first, most frequent first."""
    duplicates: int = 0
    """Rows with the content of an earlier one; they are left out too."""
    conflicts: int = 0
    """Questions with more than one target; their rows are usable."""
    restated: int = 0
    """Questions that differ from an earlier one by case, punctuation or white space alone; their rows are usable."""
    labels: dict[str, int] = field(default_factory=dict)
    """Usable rows for each label, most frequent first; empty for a tab that answers with text."""
    words: dict[str, int] = field(default_factory=lambda: {"median": 0, "max": 0})
    """`median` and `max` of the words of a question."""
    sample: tuple[Row, ...] = ()
    warnings: tuple[str, ...] = ()
    tokens: TokenLengths | None = None
    """None where no base was named, or for the reason in `untokenized`."""
    untokenized: str = ""
    """Reason why `tokens` are missing; `LATER` where the base is not on this disk yet."""
    rendered: tuple[Rendered, ...] = ()
    held_out: HeldOut | None = None

    @property
    def left_out(self) -> int:
        """Number of records that cannot be used."""
        return self.rows - self.usable

    def to_json(self) -> str:
        """Return one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """Parse what `to_json` returned."""
        return _REPORT.validate_python(json.loads(text))


_REPORT = TypeAdapter(Report)


class BadRows:
    """A counter of records that are left out."""

    def __init__(self) -> None:
        self.first: list[BadRow] = []
        """The first records by number, at most `MOST_BAD`, whatever the order in which they were added."""
        self._kinds: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, bad: BadRow) -> None:
        """Count a record that is left out."""
        if len(self.first) < MOST_BAD or bad.number < self.first[-1].number:
            insort(self.first, bad, key=lambda other: other.number)
            del self.first[MOST_BAD:]
        kind = re.sub(r"\d[\d,]*", "#", bad.reason)
        if len(self._kinds) < MOST_REASONS:
            self._kinds.setdefault(kind, bad.reason)
        self._counts[self._kinds.get(kind, OTHER_REASONS)] += 1

    @property
    def reasons(self) -> dict[str, int]:
        """Records for each kind of reason, most frequent first."""
        return dict(self._counts.most_common())


def by_count(labels: dict[str, int]) -> dict[str, int]:
    """Return the same counts, most frequent first."""
    return dict(sorted(labels.items(), key=lambda item: (-item[1], item[0])))


def find_warnings(report: Report) -> tuple[str, ...]:
    """Return warnings about rows that can be trained on but deserve a look."""
    labels, rows, left_out, conflicts = report.labels, report.rows, report.left_out, report.conflicts
    once = [label for label, count in labels.items() if count == 1]
    few = [label for label, count in labels.items() if 1 < count < LABEL_ROWS]
    only, fewer = quoted(once, 5), quoted(few, 5)
    rarest = f"The most frequent label has over 20 times the rows of the rarest: {quoted(list(labels)[-1:])}."
    found = (
        (bool(once), f"{_count(len(once), 'label')} one row only, so nothing to hold out: {only}."),
        (bool(few), f"{_count(len(few), 'label')} fewer than {LABEL_ROWS} rows, too few to learn well: {fewer}."),
        (bool(labels) and conflicts > 0, f"{_count(conflicts, 'text')} more than one label."),
        (left_out * 5 > rows, f"{left_out:,} of {rows:,} rows are left out."),
        (max(labels.values(), default=0) > 20 * min(labels.values(), default=1), rarest),
    )
    return tuple(text for applies, text in found if applies)


def check_learnable(report: Report, answers: Answers) -> None:
    """Raise `DataError` if these rows cannot teach anything."""
    file, labels, usable = report.file, report.labels, report.usable
    if report.rows == 0:
        why = "It has only the names of its columns."
        raise DataError(f"{file} has no rows.", why, "Put at least eight rows into it.")
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
        why = f"All {usable:,} usable rows are labelled {quoted(list(labels))}."
        raise DataError(f"{file} has one label only.", why, "Add rows with another label.")
    if len(labels) == usable or len(labels) > MOST_LABELS:
        what = f"The column {column!r} of {file} looks like free text."
        count = f"{len(labels):,} or more" if sum(labels.values()) < usable else f"{len(labels):,}"
        why = f"Its {usable:,} rows have {count} different labels; at most {MOST_LABELS} can be told apart."
        raise DataError(what, why, "Choose the column of labels, or a tab that answers with text.")


def check_asks(report: Report, answers: Answers) -> None:
    """Raise `DataError` if these rows, which are not trained on, leave nothing to compare on."""
    if not report.usable:
        next = "Correct the rows: they need the columns of those to train on."
        raise DataError(f"{report.file} has no usable row.", _reasons(report), next)


def nothing_known(report: Report, labels: Sequence[str]) -> DataError:
    """Return the refusal of a file to compare on with none of the labels that are learned."""
    why = f"Its labels are {quoted(list(report.labels), 5)}; those to learn are {quoted(labels, 5)}."
    return DataError(f"No row of {report.file} has a label that is learned.", why, "Use the same labels in both files.")


def _reasons(report: Report) -> str:
    """Return the most common reasons for leaving rows out, each with its number of rows."""
    common = "; ".join(f"{reason} ({_rows(count)})" for reason, count in list(report.reasons.items())[:3])
    return f"Left out: {common}." if common else ""


def _rows(count: int) -> str:
    return f"{count:,} row" + "s" * (count != 1)


def _count(count: int, noun: str) -> str:
    return f"1 {noun} has" if count == 1 else f"{count:,} {noun}s have"
