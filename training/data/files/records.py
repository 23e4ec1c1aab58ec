"""What a file of rows gives, row by row: cells by column, where a column may lie inside another (`answer.text`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from training.data.files.formats import is_unicode

Record = dict[str, Any] | str
"""One data row: its cells by column, or the reason why it has none."""
PEEK = 1000
"""Rows whose keys are the columns of a file that does not name them."""
DEPTH = 4
"""How far inside a column others are offered."""
MOST_INSIDE = 200
"""Columns inside others that one row offers."""


@dataclass(frozen=True)
class Source:
    """An open file: `read(columns)` yields every data row once, in order."""

    format: str
    columns: tuple[str, ...]
    """Those at the top first, then those inside them."""
    read: Callable[[Sequence[str]], Iterator[Record]]
    part: Callable[[], float]
    """How much of the file has been read, 0..1."""
    warnings: tuple[str, ...] = ()


def columns_of(records: Iterable[Record], most: int) -> tuple[str, ...]:
    """The names of the columns of `records`, and up to `most` in all with those that lie inside them."""
    tops: dict[str, None] = {}
    inside: dict[str, None] = {}
    for record in records:
        if isinstance(record, dict):
            tops.update(dict.fromkeys(record))
            nested = (name for top, value in record.items() for name in _inside(top, value, DEPTH))
            inside.update(dict.fromkeys(islice(nested, MOST_INSIDE)))
    return (*tops, *islice((name for name in inside if name not in tops), max(0, most - len(tops))))


def _inside(name: str, value: object, depth: int) -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else [("0", value[0])] if isinstance(value, list) and value else ()
    for key, item in items if depth else ():
        if is_unicode(key) and key.strip():
            yield f"{name}.{key}"
            yield from _inside(f"{name}.{key}", item, depth - 1)


def top(name: str, tops: Sequence[str]) -> str:
    """The column at the top that holds the one of that name; `name` itself where no column does."""
    ends = [len(name), *(found.start() for found in reversed([*re.finditer(r"\.", name)]))]
    return next((name[:end] for end in ends if name[:end] in tops), name)


def pick(record: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401 - a cell
    """The cell of a column, which may lie inside another; None where there is none."""
    if name in record:
        return record[name]
    outer = top(name, [*record])
    value: Any = record.get(outer)
    for key in name[len(outer) + 1 :].split("."):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isascii() and key.isdigit() and len(key) < 7 and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def pick_all(records: Iterable[Record], columns: Sequence[str]) -> Iterator[Record]:
    """The same rows, with the cells of those `columns` that lie inside others beside the ones at the top."""
    if not any("." in column for column in columns):
        yield from records
        return
    for record in records:
        inner = columns if isinstance(record, dict) else ()
        yield record if isinstance(record, str) else record | {name: pick(record, name) for name in inner}


def name_labels(records: Iterable[Record], labels: Mapping[str, Sequence[str]]) -> Iterator[Record]:
    """The same rows, with the names of labels in place of the numbers that stand for them."""
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
    # -1 is how data sets say that a row has no label.
    return None if value == -1 else names[value] if 0 <= value < len(names) else value
