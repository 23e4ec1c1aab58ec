"""Open a file of rows that nobody vouches for: CSV, TSV, JSONL or Parquet, by its content and not only by its name.

A file is read as a stream, in little memory however large it is. Parquet comes from `datasets`, straight from its
builder: nothing is cached, counted on a server or followed outside the file. Text is read and cut into rows here,
because the CSV and JSON builders of `datasets` give up at the first bad row, move the cells of a ragged row one column
on, and read the strings "None" and "2020-01-01" as a null and a date, and its text builder has no limit to a line.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from errors import DataError
from training.content import FORMATS, Limits, check_file, is_unicode

BATCH = 1000
"""Rows decoded at a time."""
PEEK = 1000
"""JSONL rows whose keys are the columns of the file."""
Record = dict[str, Any] | str
"""One data row: its cells by column, or the reason why it has none."""


@dataclass(frozen=True)
class Source:
    """An open file: `read(columns)` yields every data row once, in order."""

    format: str
    columns: tuple[str, ...]
    read: Callable[[Sequence[str]], Iterator[Record]]
    part: Callable[[], float]
    """How much of the file has been read, 0..1."""
    warnings: tuple[str, ...] = ()


@contextmanager
def open_source(path: Path, limits: Limits) -> Iterator[Source]:
    """Open `path` for as long as the block lasts; raises `DataError` for a file that is none of the four formats."""
    try:
        kind = check_file(path, limits)
        with tempfile.TemporaryDirectory(prefix="graft-rows-") as private:
            # A name of ours: `datasets` would take "[", "*" or "::" in the user's as a pattern or an address.
            link = Path(private) / "rows"
            link.symlink_to(path.resolve())
            if kind == "Parquet":
                source = _open_parquet(link, path, limits)
                _check_columns(path, source.columns, limits)
                yield source
                return
            with path.open(encoding="utf-8-sig") as file:
                source = (_open_jsonl if kind == "JSONL" else _open_delimited)(file, path, limits)
                _check_columns(path, source.columns, limits)
                yield source
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except OSError as error:
        raise DataError(f"{path.name} cannot be read.", f"{error.strerror}.", "Check that you may read it.") from error
    except MemoryError as error:
        raise DataError(f"{path.name} needs too much memory to read.", "", "Split it into smaller files.") from error


def _not_utf8(path: Path) -> DataError:
    """The refusal that names the first line that is not UTF-8; the file is read again, which only a failure costs."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                what = f"{path.name} is not UTF-8 text."
                why = f"Line {number} has the byte 0x{line[error.start]:02x} after {error.start} others."
                return DataError(what, why, 'Save it again as UTF-8 (in a spreadsheet: "CSV UTF-8").')
    return DataError(f"{path.name} changed while it was read.", "", "Try again.")


def _check_columns(path: Path, columns: tuple[str, ...], limits: Limits) -> None:
    if len(columns) > limits.columns:
        why = f"It has {len(columns):,}, the limit is {limits.columns:,}."
        raise DataError(f"{path.name} has too many columns.", why, "Keep the ones to learn from.")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} has two columns named {twice[0]!r}.", "", "Rename one of them.")


def _lines(file: TextIO, longest: int) -> Iterator[str]:
    """The lines of a file with their line ends, read as LF; of one that is too long no more than shows that it is."""
    while line := file.readline(longest + 1):
        yield line
        while _is_too_long(line, longest):
            line = file.readline(longest + 1)


def _is_too_long(line: str, longest: int) -> bool:
    return len(line) > longest and not line.endswith("\n")


def _part(file: TextIO) -> Callable[[], float]:
    size = os.fstat(file.fileno()).st_size
    # Of the bytes below the decoder, because a text file that is being iterated does not tell where it is.
    return lambda: min(1.0, file.buffer.tell() / max(1, size))


def _open_delimited(file: TextIO, path: Path, limits: Limits) -> Source:
    lines = _checked_lines(file, path, limits)
    first = next(lines, "")
    kind = FORMATS[path.suffix.lower()]
    delimiter = "\t" if kind == "TSV" else max(",", ";", "\t", key=first.count)
    rows = _cells(chain([first], lines), delimiter, path, limits)
    header = next(rows, [])
    if isinstance(header, str):
        raise DataError(f"The first line of {path.name} cannot be read.", f"{header}.", "It must name the columns.")
    header = [name.strip() for name in header]
    warnings = () if delimiter == "," or kind == "TSV" else (f"Cells are separated by {delimiter!r}.",)

    def read(columns: Sequence[str]) -> Iterator[Record]:
        wanted = {name: header.index(name) for name in columns}
        for cells in rows:
            if isinstance(cells, str):
                yield cells
            elif len(cells) != len(header):
                yield f"{len(cells)} cells where the first line has {len(header)}" if cells else "the line is empty"
            else:
                yield {name: cells[index] for name, index in wanted.items()}

    return Source(kind, tuple(name for name in header if name), read, _part(file), warnings)


def _checked_lines(file: TextIO, path: Path, limits: Limits) -> Iterator[str]:
    """The lines of a file of cells; one that is too long may lie inside a quote, so that no row can be left out."""
    for number, line in enumerate(_lines(file, limits.line), 1):
        if _is_too_long(line, limits.line):
            why = f"Line {number} has more than {limits.line:,} characters."
            raise DataError(f"{path.name} cannot be read to its end.", why, "Close its quotes, or cut it.")
        yield line


def _cells(lines: Iterator[str], delimiter: str, path: Path, limits: Limits) -> Iterator[list[str] | str]:
    """The cells of each row, or the reason why it has none; a quote that swallows the rest is refused."""
    # Python's own limit, 131,072, would drop the rest of a line. It is a setting of the process; no one else reads CSV.
    csv.field_size_limit(limits.line)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "unexpected end" in str(error) or "field limit" in str(error):
                why = f"The row that starts on line {line} opens a quote that is never closed."
                raise DataError(f"{path.name} cannot be read to its end.", why, "Close it, or double it.") from error
            yield str(error).replace("'", "")


def _open_jsonl(file: TextIO, path: Path, limits: Limits) -> Source:
    records = (_object(line, limits.line) for line in _lines(file, limits.line))
    first = list(islice(records, PEEK))
    columns = tuple(dict.fromkeys(key for record in first if isinstance(record, dict) for key in record))
    if not columns:
        reason = next(record for record in first if isinstance(record, str)) if any(first) else "empty objects"
        next_ = 'Write one object a line, like {"text": "...", "target": "..."}.'
        raise DataError(f"{path.name} says JSONL but has no JSON objects.", f"Line 1: {reason}.", next_)
    return Source("JSONL", columns, lambda _: chain(first, records), _part(file))


def _object(line: str, longest: int) -> Record:
    """The JSON object of one line, or the reason why it is none."""
    if _is_too_long(line, longest):
        return f"the line has more than {longest:,} characters"
    if not line.strip():
        return "the line is empty"
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        return f"not JSON: {error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError):
        return "not JSON that can be read: a number or a nesting is too long"
    if not isinstance(value, dict):
        return "not a JSON object"
    return value if all(map(is_unicode, value)) else "a name has half of a surrogate pair"


def _open_parquet(link: Path, path: Path, limits: Limits) -> Source:
    # Only for the files that need it: with pandas behind it, it is 60 MB and a good part of a second.
    from datasets import Features, IterableDataset, config  # noqa: PLC0415

    # It would import torch, only to make its streams torch's too.
    config.TORCH_AVAILABLE = False
    facts = _decoded(path, lambda: pq.read_metadata(link))
    schema = _decoded(path, facts.schema.to_arrow_schema)
    allowed, seen = max(limits.decoded_bytes, limits.expansion * path.stat().st_size), 0

    def read(columns: Sequence[str]) -> Iterator[Record]:
        # Of the fields alone: in its metadata a file can declare a column of images, to be read from any path.
        features = _decoded(path, lambda: Features.from_arrow_schema(pa.schema([schema.field(c) for c in columns])))
        stream = IterableDataset.from_parquet(
            str(link), cache_dir=str(link.parent), columns=list(columns), features=features, batch_size=BATCH
        )
        batches, size = stream.with_format("arrow").iter(batch_size=BATCH), 0
        nonlocal seen
        while (batch := _decoded(path, lambda: next(batches, None))) is not None:
            size, seen = size + batch.nbytes, seen + batch.num_rows
            if size > allowed:
                why = f"Unpacked it is more than {allowed / 1e6:,.0f} MB."
                raise DataError(f"{path.name} is too large.", why, "Use a part of it.")
            yield from _decoded(path, batch.to_pylist)

    return Source("Parquet", tuple(schema.names), read, lambda: min(1.0, seen / max(1, facts.num_rows)))


def _decoded(path: Path, decode: Callable[[], Any]) -> Any:  # noqa: ANN401 - Arrow has no types
    """What `decode` returns; whatever Arrow and `datasets` raise over a damaged or strange file is one refusal."""
    try:
        return decode()
    except MemoryError:
        raise
    except Exception as error:
        why = "It is damaged, or a column has a type that is not supported."
        raise DataError(
            f"{path.name} cannot be read as Parquet.", why, "Write it again, or save it as JSONL."
        ) from error
