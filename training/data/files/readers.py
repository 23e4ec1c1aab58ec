"""Open an untrusted file of rows: CSV, TSV, JSONL, JSON or Parquet, checked by its content and not only by its name.

A file is read as a stream, in little memory however large it is. Text is split into cells here, because the CSV and
JSON readers of pandas, Arrow and `datasets` give up at the first bad row or shift the cells of a ragged one, take the
strings "None" and "2020-01-01" for a null and a date, and have no limit to a line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from errors import DataError
from hub.dataset_card import label_names
from training.data.files.formats import FORMATS, Limits, Selection, check_file, is_selection, read_selection
from training.data.files.json_reader import open_json, open_jsonl
from training.data.files.records import (
    Record,
    Source,
    is_too_long,
    name_labels,
    nested_columns,
    progress_of,
    read_lines,
    top_column,
    with_nested,
)

BATCH = 1000
"""Parquet rows decoded at a time."""
MOST_METADATA = 1_000_000
"""Bytes of the description of columns that `datasets` writes into Parquet files."""


@contextmanager
def open_source(path: Path, limits: Limits) -> Iterator[Source]:
    """Open a file of rows, or the files of a selection as one, for as long as the block lasts.

    Raises `DataError` for a file that is none of the formats, also while its records are read.
    """
    if not is_selection(path):
        with _open_file(path, limits) as source:
            yield source
        return
    chosen = read_selection(path)
    paths = chosen.paths(path)
    if not paths:
        raise DataError(f"{path.name} names no files.", "", "Fetch the data set again.")
    with _open_file(paths[0], limits) as first:
        yield _concatenate(chosen, paths, first, limits)


def _concatenate(chosen: Selection, paths: Sequence[Path], first: Source, limits: Limits) -> Source:
    """Return the files of a selection as one source, in order; `first` is open and names the columns."""
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    if sum(sizes) > limits.file_bytes:
        why = f"Its files have {sum(sizes) / 1e6:,.0f} MB, the limit is {limits.file_bytes / 1e6:,.0f} MB."
        raise DataError(f"{chosen.id} is too large.", why, "Use a smaller split.")
    done, now, size = 0, first, sizes[0]

    def read(columns: Sequence[str]) -> Iterator[Record]:
        nonlocal done, now, size
        yield from first.read(columns)
        for path, following in zip(paths[1:], sizes[1:], strict=True):
            done, size = done + size, following
            with _open_file(path, limits) as now:
                if not {name.partition(".")[0] for name in columns} <= {n.partition(".")[0] for n in now.columns}:
                    why = f"It has not the columns of {paths[0].name}, the first of {chosen.id}."
                    raise DataError(f"{path.name} cannot be read with the others.", why, "Use another split.")
                yield from now.read(columns)

    def progress() -> float:
        return min(1.0, (done + now.progress() * size) / max(1, sum(sizes)))

    return Source(
        first.format, first.columns, lambda columns: name_labels(read(columns), chosen.labels), progress, first.warnings
    )


@contextmanager
def _open_file(path: Path, limits: Limits) -> Iterator[Source]:
    try:
        opener = OPENERS[check_file(path, limits)]
        with path.open(encoding="utf-8-sig") as file:
            yield _checked(opener(file, path, limits), path, limits)
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except OSError as error:
        raise DataError(f"{path.name} cannot be read.", f"{error.strerror}.", "Check that you may read it.") from error
    except MemoryError as error:
        raise DataError(f"{path.name} needs too much memory to read.", "", "Split it into smaller files.") from error


def _not_utf8(path: Path) -> DataError:
    """Return the error that names the first line that is not UTF-8, reading the file again."""
    if path.suffix.lower() == ".json":  # it may be one line
        return DataError(f"{path.name} is not UTF-8 text.", "", "Save it again as UTF-8.")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                what = f"{path.name} is not UTF-8 text."
                why = f"Line {number} has the byte 0x{line[error.start]:02x} after {error.start} others."
                return DataError(what, why, 'Save it again as UTF-8 (in a spreadsheet: "CSV UTF-8").')
    return DataError(f"{path.name} changed while it was read.", "", "Try again.")


def _checked(source: Source, path: Path, limits: Limits) -> Source:
    columns = source.columns
    if len(columns) > limits.columns:  # nested ones are left out before it comes to that
        why = f"It has {len(columns):,}, the limit is {limits.columns:,}."
        raise DataError(f"{path.name} has too many columns.", why, "Keep the ones to learn from.")
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    if repeated:
        raise DataError(f"{path.name} has two columns named {repeated[0]!r}.", "", "Rename one of them.")
    return source


def _open_delimited(file: TextIO, path: Path, limits: Limits) -> Source:
    lines = _checked_lines(file, path, limits)
    first = next(lines, "")
    kind = FORMATS[path.suffix.lower()]
    delimiter = "\t" if kind == "TSV" else max(",", ";", "\t", key=first.count)
    rows = _split_cells(chain([first], lines), delimiter, path, limits)
    header = next(rows, [])
    if isinstance(header, str):
        raise DataError(f"The first line of {path.name} cannot be read.", f"{header}.", "It must name the columns.")
    header = [name.strip() for name in header]
    warnings = () if delimiter == "," or kind == "TSV" else (f"Cells are separated by {delimiter!r}.",)

    def read(columns: Sequence[str]) -> Iterator[Record]:
        wanted = {name: header.index(top_column(name, header)) for name in columns}
        for cells in rows:
            if isinstance(cells, str):
                yield cells
            elif len(cells) != len(header):
                yield f"{len(cells)} cells where the first line has {len(header)}" if cells else "the line is empty"
            else:
                yield {name: cells[index] for name, index in wanted.items()}

    return Source(kind, tuple(name for name in header if name), read, progress_of(file), warnings)


def _checked_lines(file: TextIO, path: Path, limits: Limits) -> Iterator[str]:
    """Yield the lines of a CSV file; refuses a long one, which cannot be left out as it may lie inside a quote."""
    for number, line in enumerate(read_lines(file, limits.line), 1):
        if is_too_long(line, limits.line):
            why = f"Line {number} has more than {limits.line:,} characters."
            raise DataError(f"{path.name} cannot be read to its end.", why, "Close its quotes, or cut it.")
        yield line


def _split_cells(lines: Iterator[str], delimiter: str, path: Path, limits: Limits) -> Iterator[list[str] | str]:
    """Yield the cells of each row, or the reason why it has none; refuses an unclosed quote."""
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


def _open_parquet(opened: TextIO, path: Path, limits: Limits) -> Source:
    # Opened as text like the other formats; Arrow reads its bytes. Not by its name: "s3://..." would be an address.
    file = _decode(path, lambda: pq.ParquetFile(opened.buffer))
    schema = _decode(path, lambda: file.schema_arrow)
    allowed, seen = max(limits.decoded_bytes, limits.expansion * path.stat().st_size), 0
    labels = _class_labels(schema.metadata)

    def read(columns: Sequence[str]) -> Iterator[Record]:
        nonlocal seen
        tops, size = [*dict.fromkeys(top_column(column, schema.names) for column in columns)], 0
        batches = _decode(path, lambda: file.iter_batches(BATCH, columns=tops, use_threads=False))
        while (batch := _decode(path, lambda: _plain_batch(next(batches, None)))) is not None:
            size, seen = size + batch.nbytes, seen + batch.num_rows
            if size > allowed:
                why = f"Unpacked it is more than {allowed / 1e6:,.0f} MB."
                raise DataError(f"{path.name} is too large.", why, "Use a part of it.")
            yield from with_nested(name_labels(_decode(path, batch.to_pylist), labels), columns)

    nested = (name for field in schema for name in nested_columns(field.name, field.type, _inside))
    others = (name for name in nested if name not in schema.names)
    names = (*schema.names, *islice(others, max(0, limits.columns - len(schema.names))))
    return Source("Parquet", names, read, lambda: min(1.0, seen / max(1, file.metadata.num_rows)))


def _plain_batch(batch: Any) -> Any:  # noqa: ANN401 - Arrow has no types
    """Return a batch without dictionary encoding, which hides the size of repeated cells."""
    return None if batch is None else batch.cast(pa.schema([_plain(field) for field in batch.schema]))


def _plain(field: Any) -> Any:  # noqa: ANN401 - Arrow has no types
    kind = field.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    elif pa.types.is_struct(kind):
        kind = pa.struct([_plain(inner) for inner in kind])
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = pa.list_(_plain(kind.value_field))
    return field.with_type(kind)


def _inside(kind: Any) -> list[tuple[str, Any]]:  # noqa: ANN401 - Arrow has no types
    """Return the fields of a struct, or the first element of a list, by key."""
    if pa.types.is_struct(kind):
        return [(kind.field(i).name, kind.field(i).type) for i in range(kind.num_fields)]
    return [("0", kind.value_type)] if pa.types.is_list(kind) or pa.types.is_large_list(kind) else []


def _class_labels(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return label names by column from the metadata that `datasets` writes; all other metadata is ignored."""
    written = (metadata or {}).get(b"huggingface", b"")
    try:
        features = json.loads(written)["info"]["features"] if len(written) <= MOST_METADATA else {}
        kinds = {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    named = {n: label_names(kind.get("names")) for n, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    return {name: names for name, names in named.items() if names}


def _decode(path: Path, decode: Callable[[], Any]) -> Any:  # noqa: ANN401 - Arrow has no types
    """Return `decode()`; raises `DataError` for any error of Arrow's."""
    try:
        return decode()
    except MemoryError:
        raise
    except Exception as error:
        why = "It is damaged, or a column has a type that is not supported."
        next_ = "Write it again, or save it as JSONL."
        raise DataError(f"{path.name} cannot be read as Parquet.", why, next_) from error


OPENERS: Mapping[str, Callable[[TextIO, Path, Limits], Source]] = {
    "CSV": _open_delimited,
    "TSV": _open_delimited,
    "JSONL": open_jsonl,
    "JSON": open_json,
    "Parquet": _open_parquet,
}
"""Functions that open a file of each format, given as text."""
