"""Rows from JSON: an object a line, or the objects of an array, wherever in a file of any size it begins.

Of the file, no more than one row and one block are held. A value is decoded by Python's own decoder; where that
fails, brackets and quotes tell whether the value is broken or only not yet read to its end.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

from errors import DataError
from training.data.files.formats import Limits, is_unicode
from training.data.files.records import PEEK, Record, Source, columns_of, pick_all

BLOCK = 1 << 18
"""Characters read at a time."""
DECODER = json.JSONDecoder()
SPACE = re.compile(r"[ \t\r\n]*")
TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|["\[\]{}]', re.DOTALL)
SCALAR = re.compile(r"[^,\]}]*+")
ADVICE = 'Write an array of objects, like [{"text": "...", "target": "..."}, ...], or one object a line.'


def open_jsonl(file: TextIO, path: Path, limits: Limits) -> Source:
    """One object a line; raises `DataError` where no line has one."""
    records = (_line(line, limits.line) for line in lines(file, limits.line))
    first = list(islice(records, PEEK))
    columns = columns_of(first, limits.columns)
    if not columns:
        reason = next(record for record in first if isinstance(record, str)) if any(first) else "empty objects"
        next_ = 'Write one object a line, like {"text": "...", "target": "..."}.'
        raise DataError(f"{path.name} says JSONL but has no JSON objects.", f"Line 1: {reason}.", next_)
    return Source("JSONL", columns, lambda wanted: pick_all(chain(first, records), wanted), part(file))


def open_json(file: TextIO, path: Path, limits: Limits) -> Source:
    """An array of objects, at the top or inside an object or two, or one object a line. Raises `DataError`."""
    if _is_lines(file, limits.line):
        return open_jsonl(file, path, limits)
    records = _rows(_Text(file, path, limits.line))
    first = list(islice(records, PEEK))
    columns = columns_of(first, limits.columns)
    if not columns:
        raise DataError(f"{path.name} has no array of objects.", "Its array holds none.", ADVICE)
    return Source("JSON", columns, lambda wanted: pick_all(chain(first, records), wanted), part(file))


def part(file: TextIO) -> Callable[[], float]:
    """How much of a file has been read, 0..1."""
    size = os.fstat(file.fileno()).st_size
    # Of the bytes below the decoder, because a text file that is being iterated does not tell where it is.
    return lambda: min(1.0, file.buffer.tell() / max(1, size))


def lines(file: TextIO, longest: int) -> Iterator[str]:
    """The lines of a file with their line ends, read as LF; of one that is too long no more than shows that it is."""
    while line := file.readline(longest + 1):
        yield line
        while is_too_long(line, longest):
            line = file.readline(longest + 1)


def is_too_long(line: str, longest: int) -> bool:
    """Whether a line of `lines` is only the beginning of one."""
    return len(line) > longest and not line.endswith("\n")


def _line(line: str, longest: int) -> Record:
    """The JSON object of one line, or the reason why it is none."""
    if is_too_long(line, longest):
        return f"the line has more than {longest:,} characters"
    if not line.strip():
        return "the line is empty"
    try:
        return _object(json.loads(line))
    except (ValueError, RecursionError) as error:
        return _reason(error)


def _object(value: object) -> Record:
    if not isinstance(value, dict):
        return "not a JSON object"
    return value if all(map(is_unicode, value)) else "a name has half of a surrogate pair"


def _reason(error: Exception, start: int = 0) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg} at character {error.pos - start + 1}"
    return "not JSON that can be read: a number or a nesting is too long"


def _is_lines(file: TextIO, longest: int) -> bool:
    """Whether the first two lines that hold something hold an object each; the file is where it was."""
    found: list[Record] = []
    for line in islice(lines(file, longest), 100):
        if line.strip():
            found.append(_line(line, longest))
        if len(found) == 2 or (found and isinstance(found[0], str)):
            break
    file.seek(0)
    return len(found) == 2 and all(isinstance(record, dict) for record in found)


def _rows(text: _Text) -> Iterator[Record]:
    """The elements of the one array of objects; raises `DataError` where there is none, or another one behind it."""
    if text.peek() == "[":
        yield from text.elements()
    else:
        arrays = text.arrays(depth=1)
        name = next(arrays, None)
        if name is None:
            raise text.refusal("has no array of objects.", "It is an object that holds none, nor does one inside it.")
        yield from text.elements()
        other = next(arrays, None)
        if other is not None:
            raise text.refusal("has two arrays of objects.", f"They are {name!r} and {other!r}; only one can be read.")
    if text.peek():
        raise text.refusal("cannot be read to its end.", "Something follows after the end of its JSON.")


class _Text:
    """A JSON text that is read from its beginning to its end, in little memory."""

    def __init__(self, file: TextIO, path: Path, longest: int) -> None:
        self._file, self._path, self._longest = file, path, longest
        self._text, self._at, self._row = "", 0, 0

    def peek(self, after: int = 0) -> str:
        """The next character that is no white space, `after` characters on; empty at the end."""
        while True:
            at = self._at + after
            found = SPACE.match(self._text, at) if at <= len(self._text) else None
            if found and found.end() < len(self._text):
                if not after:
                    self._at = found.end()
                return self._text[found.end()]
            if not after and found:
                self._at = found.end()  # white space is not kept
            if not self._more():
                return ""

    def take(self, wanted: str) -> None:
        """Go on behind a character that must come next."""
        if self.peek() != wanted:
            raise self._broken(f"{wanted} is expected")
        self._at += 1

    def value(self) -> Any:  # noqa: ANN401 - any JSON value
        """The next value; raises `_Broken` for one that is no JSON but has an end."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                broken, ended = _reason(error, self._at), self._end()
                if ended is not None:
                    self._at = ended
                    raise _Broken(broken) from None
            else:
                # A number at the end of what was read may go on.
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value
                continue
            if not self._more():
                raise self._broken(broken)

    def elements(self) -> Iterator[Record]:
        """Each element of the array that comes next, or the reason why it is no row."""
        self.take("[")
        while self.peek() != "]":
            self._row += 1
            try:
                yield _object(self.value())
            except _Broken as broken:
                yield str(broken)
            if self.peek() != "]":
                self.take(",")
        self.take("]")

    def arrays(self, depth: int, outer: str = "") -> Iterator[str]:
        """Stop before each array of objects in the object that comes next; whoever asks takes its elements."""
        self.take("{")
        while self.peek() != "}":
            name = f"{outer}{self._whole()}"
            self.take(":")
            if self.peek() == "[" and self.peek(after=1) == "{":
                yield name
            elif depth and self.peek() == "{":
                yield from self.arrays(depth - 1, f"{name}.")
            else:
                self._whole()
            if self.peek() != "}":
                self.take(",")
        self.take("}")

    def refusal(self, what: str, why: str) -> DataError:
        """What is said of the file."""
        return DataError(f"{self._path.name} {what}", why, ADVICE)

    def _whole(self) -> Any:  # noqa: ANN401 - any JSON value
        try:
            return self.value()
        except _Broken as broken:
            raise self._broken(str(broken)) from None

    def _broken(self, reason: str) -> DataError:
        where = f"Row {self._row:,}" if self._row else "Its beginning"
        return self.refusal("cannot be read to its end.", f"{where}: {reason}.")

    def _more(self) -> bool:
        """Read on, as much again as is held, so that a long value is not decoded time and again."""
        held = len(self._text) - self._at
        if held > self._longest:
            raise self._broken(f"it has more than {self._longest:,} characters")
        block = self._file.read(min(max(BLOCK, held), self._longest + 1))
        self._text, self._at = self._text[self._at :] + block, 0
        return bool(block)

    def _end(self) -> int | None:
        """Where the next value ends by its brackets and quotes, if that has been read."""
        if self._text[self._at : self._at + 1] not in ("{", "[", '"'):
            end = SCALAR.match(self._text, self._at)
            return end.end() if end and self._at < end.end() < len(self._text) else None
        depth = 0
        for token in TOKEN.finditer(self._text, self._at):
            if token.group() == '"':
                return None
            depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token.group(), 0)
            if depth == 0:
                return token.end()
        return None


class _Broken(Exception):
    """Why a value is no JSON, in a few words."""
