"""What kind of file a user brought, by its name and by its first bytes, and how much of one is read at all."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from errors import DataError
from tasks import LONGEST_CELL

FORMATS = {".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSONL", ".json": "JSON", ".parquet": "Parquet"}
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
    """How much of a file is read before it is refused."""

    file_bytes: int = 20_000_000_000
    rows: int = 50_000_000
    columns: int = 1_000
    decoded_bytes: int = 50_000_000
    """Bytes that any file may have after decompression: a Parquet file of 500 bytes can hold 100 MB."""
    expansion: int = 100
    """Bytes after decompression for each byte of a larger file."""
    cell: int = LONGEST_CELL
    """Characters; a longer cell makes its row a bad row."""

    @property
    def line(self) -> int:
        """Characters of one line of text: it is held in memory whole."""
        return 100 * self.cell


def check_file(path: Path, limits: Limits) -> str:
    """The format of a file, by its name and its first bytes; raises `DataError` where they disagree."""
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
    found = _content(head, kind)
    if found != kind:
        raise DataError(f"{path.name} says {kind} but is {found}.", "", f"Save it as {kind} in UTF-8. {ACCEPTED}")
    return kind


def _content(head: bytes, kind: str) -> str:
    """What the first bytes of a file are: `kind`, or words for something else."""
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


def is_unicode(text: str) -> bool:
    """Whether `text` can be written as UTF-8; JSON escapes can make half a surrogate pair, which cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
