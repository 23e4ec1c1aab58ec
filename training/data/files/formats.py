"""Formats of files of rows, detected by name and first bytes; limits to their sizes; and several files read as one.

A `Selection` names the files of one split of a Hub data set. It is written as JSON to `NAME.rows`, whose path can be
used like that of a file of rows. Only this program writes such files; the page opens none that a user uploads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from errors import DataError
from store import files
from tasks import LONGEST_CELL

FORMATS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSONL", ".json": "JSON", ".parquet": "Parquet"}
SELECTION_SUFFIX = ".rows"
ACCEPTED = "Use a .csv, .tsv, .jsonl, .json or .parquet file."
SIGNATURES = (
    (b"PAR1", "Parquet"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet"),
    (b"PK\x05\x06", "a zip archive"),
    (b"PK\x07\x08", "a zip archive"),
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"\xd0\xcf\x11\xe0", "an old spreadsheet"),
    (b"%PDF", "a PDF"),
    (b"ARROW1", "Arrow"),
    (b"SQLite format 3", "a database"),
    (b"\xff\xfe", "UTF-16 text"),
    (b"\xfe\xff", "UTF-16 text"),
)
MARKUP = re.compile(rb"\s*<(!doctype|!--|\?xml|html|head|body|svg)", re.IGNORECASE)


@dataclass(frozen=True)
class Limits:
    """Sizes above which a file is refused, or a row left out."""

    file_bytes: int = 20_000_000_000
    rows: int = 50_000_000
    columns: int = 1_000
    decoded_bytes: int = 50_000_000
    """Bytes that any Parquet file may have after decompression: one of 500 bytes can hold 100 MB."""
    expansion: int = 100
    """Bytes after decompression for each byte of a larger file."""
    cell: int = LONGEST_CELL
    """Characters; a longer cell makes its row a bad row."""

    @property
    def line(self) -> int:
        """Characters of one line of text, which is held in memory whole."""
        return 100 * self.cell


@dataclass(frozen=True)
class Selection:
    """A split of a Hub data set at one commit, and the paths of its files."""

    id: str
    revision: str
    config: str
    split: str
    files: tuple[str, ...]
    """Paths, in order; relative ones start at the folder of the `.rows` file."""
    labels: Mapping[str, list[str]] = field(default_factory=dict)
    """Label names by column: the number n in a cell stands for `labels[column][n]`."""

    @property
    def source(self) -> dict[str, str]:
        """Id, revision, configuration and split: the rows' name on the Hub."""
        return {"id": self.id, "revision": self.revision, "config": self.config, "split": self.split}

    def write(self, path: Path) -> None:
        """Replace `path` atomically with this selection."""
        files.write_json(path, asdict(self))

    def paths(self, place: Path) -> list[Path]:
        """Return the paths of the files, in order, of a selection read from the file `place`."""
        return [place.parent / name for name in self.files]


def is_selection(path: Path) -> bool:
    """Return whether a path names a selection of several files."""
    return path.suffix == SELECTION_SUFFIX


def read_selection(path: Path) -> Selection:
    """Read a selection; raises `DataError` for one that is missing or damaged."""
    try:
        facts: dict[str, Any] = files.read_json(path)
        return Selection(**{**facts, "files": tuple(facts["files"])})
    except FileNotFoundError as error:
        raise DataError(f"{path.name} is not there.", "", "Fetch the data set again.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path.name} cannot be read.", "It is damaged.", "Fetch the data set again.") from error


def parts(path: Path) -> list[Path]:
    """Return the path itself, or the files of a selection. Raises `DataError`."""
    return read_selection(path).paths(path) if is_selection(path) else [path]


def title(path: Path) -> str:
    """Return the name of a file or selection to show."""
    return path.stem.replace("--", "/", 1) if is_selection(path) else path.name


def check_file(path: Path, limits: Limits) -> str:
    """Return the format of a file; raises `DataError` where its name and its first bytes disagree."""
    kind = FORMATS.get(path.suffix.lower())
    if not path.is_file():
        raise DataError(f"{path.name} is not there.", "", "Check the path of the file.")
    if kind is None:
        raise DataError(f"{path.name} cannot be read.", f"Files of kind {path.suffix or '(none)'} are not.", ACCEPTED)
    size = path.stat().st_size
    if size > limits.file_bytes:
        why = f"It has {size / 1e6:,.0f} MB, the limit is {limits.file_bytes / 1e6:,.0f} MB."
        raise DataError(f"{path.name} is too large.", why, "Use a part of it.")
    with path.open("rb") as file:
        head = file.read(4096)
    if not head.removeprefix(b"\xef\xbb\xbf").strip():
        raise DataError(f"{path.name} is empty.", "", "Put at least eight rows into it.")
    found = _detect(head, kind)
    if found != kind:
        raise DataError(f"{path.name} says {kind} but is {found}.", "", f"Save it as {kind} in UTF-8. {ACCEPTED}")
    return kind


def _detect(head: bytes, kind: str) -> str:
    """Return `kind` if the first bytes of a file may be of that format, otherwise a name for what they are."""
    for signature, name in SIGNATURES:
        if head.startswith(signature):
            return name
    if kind == "Parquet":
        return "not"
    if b"\0" in head:
        return "not text"
    head = head.removeprefix(b"\xef\xbb\xbf")
    if MARKUP.match(head):
        return "a web page or XML"
    first = head.split(None, 1)[0]
    if kind == "JSON":
        return kind if first.startswith((b"{", b"[")) else "not"
    if kind != "JSONL":
        return "JSON" if first.startswith((b"{", b"[{")) or first == b"[" else kind
    if first.startswith(b"["):
        return "a JSON array"
    return "JSON over several lines" if head.split(b"\n")[0].strip() == b"{" else kind
