"""Read records from JSON: one object a line, or one array of objects, which may lie inside one or two objects.

An array is parsed with `ijson` as a stream, so that memory holds one record and one block of the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import ijson

from errors import DataError
from training.data.files.formats import Limits
from training.data.files.records import (
    MOST_PEEKED,
    Record,
    Source,
    columns_of,
    is_too_long,
    is_unicode,
    progress_of,
    read_lines,
    with_nested,
)

BLOCK = 1 << 16
"""Characters read at a time."""
MOST_NESTED = 100
"""Levels of objects and arrays in one record; a deeper one is a bad row."""
ADVICE = 'Write an array of objects, like [{"text": "...", "target": "..."}, ...], or one object a line.'

Events = Iterator[tuple[str, Any]]
"""Parser events of ijson: `("start_map", None)`, `("map_key", "text")`, `("string", "a")`, ..."""


def open_jsonl(file: TextIO, path: Path, limits: Limits) -> Source:
    """Open a file with one object a line; raises `DataError` where the first lines hold none."""
    records = (_parse_line(line, limits.line) for line in read_lines(file, limits.line))
    first = list(islice(records, MOST_PEEKED))
    columns = columns_of(first, limits.columns)
    if not columns:
        reason = next((record for record in first if isinstance(record, str)), "empty objects")
        next_ = 'Write one object a line, like {"text": "...", "target": "..."}.'
        raise DataError(f"{path.name} says JSONL but has no JSON objects.", f"Line 1: {reason}.", next_)
    return Source("JSONL", columns, lambda wanted: with_nested(chain(first, records), wanted), progress_of(file))


def open_json(file: TextIO, path: Path, limits: Limits) -> Source:
    """Open a file with an array of objects, or with one object a line; raises `DataError` for any other JSON."""
    if _is_jsonl(file, limits.line):
        return open_jsonl(file, path, limits)
    records = _ArrayParser(file, path, limits.line).records()
    first = list(islice(records, MOST_PEEKED))
    columns = columns_of(first, limits.columns)
    if not columns:
        why = "Neither its top nor an object inside it is an array that holds one."
        raise DataError(f"{path.name} has no array of objects.", why, ADVICE)
    return Source("JSON", columns, lambda wanted: with_nested(chain(first, records), wanted), progress_of(file))


def _is_jsonl(file: TextIO, longest: int) -> bool:
    """Return whether each of the first two lines that are not empty is an object; leaves the file at its start."""
    filled = (line for line in islice(read_lines(file, longest), 100) if line.strip())
    objects = [isinstance(_parse_line(line, longest), dict) for line in islice(filled, 2)]
    file.seek(0)
    return objects == [True, True]


def _parse_line(line: str, longest: int) -> Record:
    if is_too_long(line, longest):
        return f"the line has more than {longest:,} characters"
    if not line.strip():
        return "the line is empty"
    try:
        return _as_record(json.loads(line))
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError):
        return "not JSON that can be read: a number or a nesting is too long"


def _as_record(value: object) -> Record:
    if not isinstance(value, dict):
        return "not a JSON object"
    return value if all(map(is_unicode, value)) else "a name has half of a surrogate pair"


class _ArrayParser:
    """One pass over a JSON text that holds one array of objects."""

    def __init__(self, file: TextIO, path: Path, longest: int) -> None:
        self._file, self._path, self._longest = file, path, longest
        self._name, self._row = "", 0
        """The array, and the number of the element that is parsed; 0 before the array."""
        self._pending = 0
        """Characters read since the last complete value."""

    def records(self) -> Iterator[Record]:
        """Yield the elements of the array; raises `DataError` for text that is not JSON, or has not one such array."""
        events = ijson.basic_parse(self, buf_size=min(BLOCK, self._longest))
        try:
            event, _ = next(events)
            yield from self._elements(events) if event == "start_array" else self._members(events)
            for _ in events:  # anything that follows is an error
                pass
        except ijson.JSONError as error:
            raise self._broken(f"not JSON: {str(error).splitlines()[0].rstrip('.')}") from error

    def read(self, size: int) -> bytes:
        """Return the next block for ijson, as UTF-8; raises `DataError` where one value has more than `longest`."""
        if self._pending > self._longest:
            raise self._broken(f"it has more than {self._longest:,} characters")
        block = self._file.read(size)
        self._pending += len(block)
        return block.encode()

    def _elements(self, events: Events, name: str = "") -> Iterator[Record]:
        """Yield each element of the array that is open."""
        if self._row:
            why = f"They are {self._name!r} and {name!r}; only one can be read."
            raise DataError(f"{self._path.name} has two arrays of objects.", why, ADVICE)
        self._name = name
        for event, value in events:
            if event == "end_array":
                return
            self._row += 1
            yield self._value(events, event, value)

    def _members(self, events: Events, outer: str = "", depth: int = 1) -> Iterator[Record]:
        """Yield each element of the array of objects inside the object that is open, at most `depth` objects deeper."""
        for event, key in events:
            if event == "end_map":
                return
            name, (event, value), rest = f"{outer}{key}", next(events), events
            if event == "start_map" and depth:
                yield from self._members(events, f"{name}.", depth - 1)
                continue
            if event == "start_array":
                first = next(events)
                rest = chain([first], events)
                if first[0] == "start_map":
                    yield from self._elements(rest, name)
                    continue
            self._value(rest, event, value)

    def _value(self, events: Events, event: str, value: Any) -> Record:  # noqa: ANN401 - any JSON value
        """Return the value that begins with `event`, or the reason why it is no record."""
        builder, depth, deepest = ijson.ObjectBuilder(), 0, 0
        while True:
            depth += event.startswith("start_")
            depth -= event.startswith("end_")
            deepest = max(deepest, depth)
            if deepest <= MOST_NESTED:
                # ijson gives decimals, whose digits are kept, where json gives the nearest float.
                builder.event(event, float(value) if isinstance(value, Decimal) else value)
            if depth == 0:
                self._pending = 0
                return _as_record(builder.value) if deepest <= MOST_NESTED else "not JSON that can be read: too nested"
            event, value = next(events)

    def _broken(self, reason: str) -> DataError:
        where = f"Row {self._row:,}" if self._row else "Its beginning"
        return DataError(f"{self._path.name} cannot be read to its end.", f"{where}: {reason}.", ADVICE)
