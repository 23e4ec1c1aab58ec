"""What a file of rows holds and what was left out of it, and whether it can be learned from at all."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from errors import DataError
from training.rows import Answers, Row, asked

SAMPLE = 5
"""Rows that a report shows."""
FEWEST_ROWS = 8
"""Rows below which there is nothing to train on and hold out."""
MOST_LABELS = 200


@dataclass(frozen=True)
class BadRow:
    """A row that is left out; `number` counts the rows of data from 1, without the line that names CSV columns."""

    number: int
    reason: str


@dataclass(frozen=True)
class Report:
    """A file of rows before anything trains on it: `rows == usable + len(bad)`."""

    file: str
    format: str
    rows: int
    usable: int
    columns: tuple[str, ...]
    mapping: dict[str, str]
    """The column of the file for each part of a row."""
    bad: tuple[BadRow, ...]
    duplicates: int
    """Rows like an earlier one; they are in `bad` too."""
    conflicts: int
    """Texts that have more than one target; their rows are usable."""
    labels: dict[str, int]
    """Usable rows for each label, most frequent first; empty for a tab that answers with text."""
    words: dict[str, int]
    """`median` and `max` words of what a row asks."""
    sample: tuple[Row, ...]
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The inverse of `to_json`."""
        fields: dict[str, Any] = json.loads(text)
        fields["bad"] = tuple(BadRow(**bad) for bad in fields["bad"])
        return cls(**fields | {name: tuple(fields[name]) for name in ("columns", "sample", "warnings")})


def count_labels(rows: Sequence[Row], answers: Answers) -> dict[str, int]:
    """Rows for each label, most frequent first; empty unless the answers are labels."""
    counts = Counter(row["target"] for row in rows) if answers == "label" else Counter[str]()
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def count_words(rows: Sequence[Row]) -> dict[str, int]:
    """Median and maximum of the words that a row asks with."""
    counts = [len(asked(row).split()) for row in rows] or [0]
    return {"median": round(median(counts)), "max": max(counts)}


def count_conflicts(rows: Sequence[Row]) -> int:
    """Texts that are answered in more than one way."""
    # Hashes instead of texts: a million rows may have gigabytes of them.
    targets: defaultdict[int, set[int]] = defaultdict(set)
    for row in rows:
        answer = row["messages"][-1]["content"] if "messages" in row else row["target"]
        targets[hash(asked(row).strip())].add(hash(answer.strip()))
    return sum(len(found) > 1 for found in targets.values())


def find_warnings(labels: dict[str, int], bad: int, rows: int, conflicts: int) -> tuple[str, ...]:
    """What does not stop a training but deserves a look."""
    once = [label for label, count in labels.items() if count == 1]
    found = (
        (bool(once), f"{_count(len(once), 'label')} one row only, so nothing to hold out: {_quoted(once)}."),
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
        why = f"Its {usable:,} rows have {len(labels):,} different labels; at most {MOST_LABELS} can be told apart."
        raise DataError(what, why, "Choose the column of labels, or a tab that answers with text.")


def _reasons(report: Report) -> str:
    """The most common reasons for leaving rows out, each with how many rows it explains."""
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for bad in report.bad:
        kind = re.sub(r"\d[\d,]*", "#", bad.reason)
        counts[first.setdefault(kind, bad.reason)] += 1
    common = "; ".join(f"{reason} ({_rows(count)})" for reason, count in counts.most_common(3))
    return f"Left out: {common}." if common else ""


def _rows(count: int) -> str:
    return f"{count:,} row" + "s" * (count != 1)


def _count(count: int, noun: str) -> str:
    return f"1 {noun} has" if count == 1 else f"{count:,} {noun}s have"


def _quoted(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
