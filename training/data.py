"""Rows to train on, from a file: read, checked row by row, reported, and split so that the same text stays on one side.

    python -m training.data FILE --answers label --columns text=body,target=kind

prints the report as JSON and exits with 0, or prints `{"what", "why", "next"}` and exits with 2. The page runs it as
a child process with little memory, because the file comes from anybody.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from errors import DataError, GraftError
from tasks import Columns
from training.content import Limits
from training.readers import Record, leave_torch_out, open_source
from training.report import (
    SAMPLE,
    BadRow,
    Report,
    check_learnable,
    count_conflicts,
    count_labels,
    count_words,
    find_warnings,
)
from training.rows import PARTS, Answers, Row, RowProblem, choose_columns, to_row
from training.split import split

__all__ = ["BadRow", "Limits", "Report", "Row", "Table", "read_table", "split"]

NO_MAPPING: Mapping[str, str] = {}


@dataclass(frozen=True)
class Table:
    """The usable rows of a file, and its report."""

    rows: list[Row]
    report: Report


def read_table(
    path: Path,
    answers: Answers,
    columns: Columns,
    mapping: Mapping[str, str] = NO_MAPPING,
    limits: Limits = Limits(),  # noqa: B008 - frozen
) -> Table:
    """The rows of `path` for a tab that learns from `columns`; a name that the file lacks is guessed.

    `mapping` (part of a row -> column of the file) is the user's own choice and is taken as it is.
    Raises `DataError` for a file that cannot be read or learned from.
    """
    with open_source(path, limits) as source:
        chosen, guesses = choose_columns(path.name, source.columns, answers, columns, mapping)
        make = partial(
            to_row, mapping=chosen, answers=answers, chat=bool(columns.messages) and answers == "text", cell=limits.cell
        )
        numbered = enumerate(source.read(tuple(chosen.values())), 1)
        rows, bad, duplicates = _collect(numbered, make, path.name, limits.rows)
    labels, conflicts, total = count_labels(rows, answers), count_conflicts(rows), len(rows) + len(bad)
    report = Report(
        file=path.name,
        format=source.format,
        rows=total,
        usable=len(rows),
        columns=source.columns,
        mapping=chosen,
        bad=tuple(bad),
        duplicates=duplicates,
        conflicts=conflicts,
        labels=labels,
        words=count_words(rows),
        sample=tuple(rows[:SAMPLE]),
        warnings=(*source.warnings, *guesses, *find_warnings(labels, len(bad), total, conflicts)),
    )
    check_learnable(report, answers)
    return Table(rows, report)


def _collect(
    records: Iterable[tuple[int, Record]], make: Callable[[Mapping[str, object]], Row], file: str, most: int
) -> tuple[list[Row], list[BadRow], int]:
    """The usable rows, the others with their reasons, and how many of those repeat an earlier row."""
    rows: list[Row] = []
    bad: list[BadRow] = []
    first: dict[bytes, int] = {}
    duplicates = 0
    for number, record in records:
        if number > most:
            raise DataError(f"{file} has too many rows.", f"The limit is {most:,}.", "Use a part of it.")
        try:
            row = _made(record, make)
        except RowProblem as problem:
            bad.append(BadRow(number, str(problem)))
            continue
        earlier = first.setdefault(_digest(row), number)
        if earlier == number:
            rows.append(row)
        else:
            bad.append(BadRow(number, f"duplicate of row {earlier}"))
            duplicates += 1
    return rows, bad, duplicates


def _made(record: Record, make: Callable[[Mapping[str, object]], Row]) -> Row:
    if isinstance(record, str):
        raise RowProblem(record)
    return make(record)


def _digest(row: Row) -> bytes:
    """What is equal for rows that differ in nothing but white space around their texts; 16 bytes to keep many."""
    messages = [[message["role"], message["content"].strip()] for message in row.get("messages", ())]
    content = messages or [row["text"].strip(), row["target"].strip()]
    return hashlib.sha256(json.dumps(content).encode()).digest()[:16]


def main(arguments: Sequence[str], memory: int = 4 * 2**30) -> int:
    """Print the report of one file, or why there is none, in at most `memory` bytes; the exit code of the process."""
    parser = argparse.ArgumentParser("python -m training.data", description="Report on a file of rows.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--answers", choices=("label", "text"), required=True)
    parser.add_argument("--columns", default="", help="your choice, taken as it is: text=COLUMN,target=COLUMN")
    parser.add_argument("--wanted", default="text=text,target=target", help="the tab's own names, guessed at if absent")
    options = parser.parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    leave_torch_out()
    try:
        wanted = Columns(**parse_columns(options.wanted))
        print(read_table(options.file, options.answers, wanted, parse_columns(options.columns)).report.to_json())
    except GraftError as error:
        print(json.dumps({"what": error.what, "why": error.why, "next": error.next}))
        return 2
    return 0


def parse_columns(text: str) -> dict[str, str]:
    """The mapping that `text=COLUMN,target=COLUMN` spells, or a JSON object for odd names; raises `DataError`."""
    if text.startswith("{"):
        return {str(part): str(name) for part, name in json.loads(text).items()}
    mapping: dict[str, str] = {}
    for pair in filter(None, text.split(",")):
        part, _, name = pair.partition("=")
        if part.strip() not in PARTS or not name.strip():
            why = f"{pair!r} is not one of {', '.join(PARTS)}, an equals sign and the name of a column."
            raise DataError("The choice of columns cannot be read.", why, "Write text=COLUMN,target=COLUMN.")
        mapping[part.strip()] = name.strip()
    return mapping


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
