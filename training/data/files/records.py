"""Records of an open file: their columns, nested ones (`answer.text`) among them, and reading of lines."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

Record = dict[str, Any] | str
"""One record: its cells by column, or the reason why it cannot be read."""
MOST_PEEKED = 1000
"""Records whose keys are the columns of a file that does not name them."""
DEPTH = 4
"""Levels of nested columns that are offered."""
MOST_INSIDE = 200
"""Nested columns that one record offers."""


@dataclass(frozen=True)
class Source:
    """An open file; `read(columns)` yields each record once, in order."""

    format: str
    columns: tuple[str, ...]
    """Top-level columns first, then nested ones."""
    read: Callable[[Sequence[str]], Iterator[Record]]
    progress: Callable[[], float]
    """Return the share of the file that has been read, 0..1."""
    warnings: tuple[str, ...] = ()


def columns_of(records: Iterable[Record], most: int) -> tuple[str, ...]:
    """Return the columns of `records`, with nested ones up to `most` in all."""
    tops: dict[str, None] = {}
    inside: dict[str, None] = {}
    for record in records:
        if isinstance(record, dict):
            tops.update(dict.fromkeys(record))
            nested = (name for top, value in record.items() for name in nested_columns(top, value, _inside))
            inside.update(dict.fromkeys(islice(nested, MOST_INSIDE)))
    return (*tops, *islice((name for name in inside if name not in tops), max(0, most - len(tops))))


def nested_columns(
    name: str,
    value: Any,  # noqa: ANN401 - a JSON value, or a type of Arrow's
    inside: Callable[[Any], Iterable[tuple[str, Any]]],
    depth: int = DEPTH,
) -> Iterator[str]:
    """Yield the dotted names of the columns inside the column `name`; `inside` returns a value's keys and parts."""
    for key, part in inside(value) if depth else ():
        if is_unicode(key) and key.strip():
            yield f"{name}.{key}"
            yield from nested_columns(f"{name}.{key}", part, inside, depth - 1)


def _inside(value: object) -> Iterable[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else [("0", value[0])] if isinstance(value, list) and value else ()


def top_column(name: str, tops: Sequence[str]) -> str:
    """Return which of the top-level columns `tops` holds `name`: `answer` for `answer.text`; else `name` itself."""
    ends = [len(name), *(found.start() for found in reversed([*re.finditer(r"\.", name)]))]
    return next((name[:end] for end in ends if name[:end] in tops), name)


def cell(record: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return the cell of a top-level or nested column; None where there is none."""
    if name in record:
        return record[name]
    outer = top_column(name, [*record])
    value: Any = record.get(outer)
    for key in name[len(outer) + 1 :].split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isascii() and key.isdigit() and len(key) < 7 and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def with_nested(records: Iterable[Record], columns: Sequence[str]) -> Iterator[Record]:
    """Yield the records with the cells of nested `columns` added under their dotted names."""
    nested = any("." in column for column in columns)
    for record in records:
        yield record | {name: cell(record, name) for name in columns} if nested and isinstance(record, dict) else record


def name_labels(records: Iterable[Record], labels: Mapping[str, Sequence[str]]) -> Iterator[Record]:
    """Yield the records, with label numbers replaced by their names in the columns of `labels`."""
    for record in records:
        if isinstance(record, dict):
            for column in labels.keys() & record.keys():
                record[column] = _label(record[column], labels[column])
        yield record


def _label(value: object, names: Sequence[str]) -> object:
    if isinstance(value, str) and value not in names and re.fullmatch(r"-1|[0-9]{1,6}", value):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    # In data sets -1 means that a row has no label.
    return None if value == -1 else names[value] if 0 <= value < len(names) else value


def read_lines(file: TextIO, longest: int) -> Iterator[str]:
    """Yield the lines of a file with their ends; longer ones than `longest` are cut to `longest` + 1 characters."""
    while line := file.readline(longest + 1):
        yield line
        while is_too_long(line, longest):
            line = file.readline(longest + 1)


def is_too_long(line: str, longest: int) -> bool:
    """Return whether `read_lines` yielded only the beginning of a line."""
    return len(line) > longest and not line.endswith("\n")


def progress_of(file: TextIO) -> Callable[[], float]:
    """Return a function that returns the share of a file that has been read, 0..1."""
    size = os.fstat(file.fileno()).st_size
    # The bytes below the decoder: a text file that is being iterated does not give its own position.
    return lambda: min(1.0, file.buffer.tell() / max(1, size))


def is_unicode(text: str) -> bool:
    """Return whether `text` can be encoded as UTF-8; half a surrogate pair, as JSON escapes can make, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
