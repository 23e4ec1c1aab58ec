"""Open a file of rows that nobody vouches for: CSV, TSV, JSONL, JSON or Parquet, by content and not only by name.

A file is read as a stream, in little memory however large it is. Parquet comes from `datasets`, straight from its
builder: nothing is cached, counted on a server or followed outside the file. Text is read and cut into rows here,
because the CSV and JSON builders of `datasets` give up at the first bad row, move the cells of a ragged row one column
on, and read the strings "None" and "2020-01-01" as a null and a date, and its text builder has no limit to a line.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from errors import DataError
from hub.dataset_card import label_names
from training.data.files.formats import FORMATS, Limits, check_file
from training.data.files.json_reader import is_too_long, lines, open_json, open_jsonl, part
from training.data.files.records import DEPTH, Record, Source, name_labels, pick_all, top
from training.data.files.selection import Selection, is_selection, read_selection

__all__ = ["Record", "Source", "open_source"]

BATCH = 1000
"""Rows decoded at a time."""
MOST_METADATA = 1_000_000
"""Bytes of what a Parquet file says of its columns for `datasets`."""


@contextmanager
def open_source(path: Path, limits: Limits) -> Iterator[Source]:
    """Open `path`, a file of rows or a selection of several, for as long as the block lasts.

    Raises `DataError` for a file that is none of the formats.
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
        yield _join(chosen, paths, first, limits)


def _join(chosen: Selection, paths: Sequence[Path], first: Source, limits: Limits) -> Source:
    """The files of a selection as one, in order; the first of them is open, and says what columns there are."""
    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    if sum(sizes) > limits.file_bytes:
        why = f"Its files have {sum(sizes) / 1e6:,.0f} MB, the limit is {limits.file_bytes / 1e6:,.0f} MB."
        raise DataError(f"{chosen.id} is too large.", why, "Use a smaller split.")
    done, now = 0, first

    def read(columns: Sequence[str]) -> Iterator[Record]:
        nonlocal done, now
        yield from first.read(columns)
        for path, size in zip(paths[1:], sizes, strict=False):
            done += size
            with _open_file(path, limits) as now:
                if not {name.partition(".")[0] for name in columns} <= {n.partition(".")[0] for n in now.columns}:
                    why = f"It has not the columns of {paths[0].name}, the first of {chosen.id}."
                    raise DataError(f"{path.name} cannot be read with the others.", why, "Use another split.")
                yield from now.read(columns)

    def far() -> float:
        return min(1.0, (done + now.part() * sizes[0]) / max(1, sum(sizes)))

    return Source(first.format, first.columns, lambda wanted: name_labels(read(wanted), chosen.labels), far,
                  first.warnings)  # fmt: skip


@contextmanager
def _open_file(path: Path, limits: Limits) -> Iterator[Source]:
    """One file."""
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
                source = OPENERS.get(kind, _open_delimited)(file, path, limits)
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


def _check_columns(path: Path, columns: tuple[str, ...], limits: Limits) -> None:
    if len(columns) > limits.columns:  # those inside others are left out before it comes to that
        why = f"It has {len(columns):,}, the limit is {limits.columns:,}."
        raise DataError(f"{path.name} has too many columns.", why, "Keep the ones to learn from.")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise DataError(f"{path.name} has two columns named {twice[0]!r}.", "", "Rename one of them.")


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
        wanted = {name: header.index(top(name, header)) for name in columns}
        for cells in rows:
            if isinstance(cells, str):
                yield cells
            elif len(cells) != len(header):
                yield f"{len(cells)} cells where the first line has {len(header)}" if cells else "the line is empty"
            else:
                yield {name: cells[index] for name, index in wanted.items()}

    return Source(kind, tuple(name for name in header if name), read, part(file), warnings)


def _checked_lines(file: TextIO, path: Path, limits: Limits) -> Iterator[str]:
    """The lines of a file of cells; one that is too long may lie inside a quote, so that no row can be left out."""
    for number, line in enumerate(lines(file, limits.line), 1):
        if is_too_long(line, limits.line):
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


def _open_parquet(link: Path, path: Path, limits: Limits) -> Source:
    # Only for the files that need it: with pandas behind it, it is 60 MB and a good part of a second.
    from datasets import Features, IterableDataset, config  # noqa: PLC0415

    # It would import torch, only to make its streams torch's too.
    config.TORCH_AVAILABLE = False
    facts = _decoded(path, lambda: pq.read_metadata(link))
    schema = _decoded(path, facts.schema.to_arrow_schema)
    allowed, seen = max(limits.decoded_bytes, limits.expansion * path.stat().st_size), 0
    labels = _class_labels(schema.metadata)

    def read(columns: Sequence[str]) -> Iterator[Record]:
        tops = [*dict.fromkeys(top(column, schema.names) for column in columns)]
        # Of the fields alone: in its metadata a file can declare a column of images, to be read from any path.
        features = _decoded(path, lambda: Features.from_arrow_schema(pa.schema([schema.field(c) for c in tops])))
        stream = IterableDataset.from_parquet(
            str(link), cache_dir=str(link.parent), columns=tops, features=features, batch_size=BATCH
        )
        batches, size = stream.with_format("arrow").iter(batch_size=BATCH), 0
        nonlocal seen
        while (batch := _decoded(path, lambda: next(batches, None))) is not None:
            size, seen = size + batch.nbytes, seen + batch.num_rows
            if size > allowed:
                why = f"Unpacked it is more than {allowed / 1e6:,.0f} MB."
                raise DataError(f"{path.name} is too large.", why, "Use a part of it.")
            yield from pick_all(name_labels(_decoded(path, batch.to_pylist), labels), columns)

    inside = (name for field in schema for name in _inside(field.name, field.type, DEPTH) if name not in schema.names)
    names = [*schema.names, *islice(inside, max(0, limits.columns - len(schema.names)))]
    return Source("Parquet", tuple(names), read, lambda: min(1.0, seen / max(1, facts.num_rows)))


def _inside(name: str, kind: Any, depth: int) -> Iterator[str]:  # noqa: ANN401 - Arrow has no types
    """The columns inside one: the fields of a struct, and the first element of a list."""
    inner: list[tuple[str, Any]] = []
    if pa.types.is_struct(kind):
        inner = [(kind.field(i).name, kind.field(i).type) for i in range(kind.num_fields)]
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = [("0", kind.value_type)]
    for key, value in inner if depth else ():
        yield f"{name}.{key}"
        yield from _inside(f"{name}.{key}", value, depth - 1)


def _class_labels(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Names of labels by column, where a file says them for `datasets`; whatever else it says there is ignored."""
    told = (metadata or {}).get(b"huggingface", b"")
    try:
        features = json.loads(told)["info"]["features"] if len(told) <= MOST_METADATA else {}
        kinds = {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    named = {n: label_names(kind.get("names")) for n, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    return {name: names for name, names in named.items() if names}


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


OPENERS: Mapping[str, Callable[[TextIO, Path, Limits], Source]] = {"JSONL": open_jsonl, "JSON": open_json}
"""Of the formats that are text and are not cells."""
