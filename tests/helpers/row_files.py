"""Files of rows for tests, in every format, and a report on one."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.data.files.formats import Limits
from training.data.files.readers import open_source
from training.data.files.records import Record
from training.data.inspect.report import BadRow, Report

TEN = [{"text": f"text number {i}", "label": "ab"[i % 2]} for i in range(10)]
REPORT = Report(
    file="a.csv",
    format="CSV",
    rows=12,
    usable=10,
    columns=("text", "label"),
    mapping={"text": "text", "target": "label"},
    bad=(BadRow(3, "text is empty"), BadRow(5, "duplicate of row 2")),
    reasons={"text is empty": 1, "duplicate of row 2": 1},
    duplicates=1,
    labels={"b": 6, "a": 4},
    words={"median": 3, "max": 9},
    sample=({"text": "é \u2028", "target": "a"},),
    warnings=("Look.",),
)
SMALL = Limits(cell=100, decoded_bytes=100_000, columns=20)
HUB_CARD = """---
configs:
- config_name: en
  default: true
  data_files:
  - split: train
    path: en/train-*.parquet
  - split: test
    path: en/test.csv
- config_name: de
  data_files: de/rows.jsonl
dataset_info:
- config_name: en
  features:
  - name: label
    dtype:
      class_label:
        names: ['bad', 'good']
---
"""


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write `rows` in the format that the name says."""
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    if path.suffix == ".json":
        path.write_text(json.dumps(rows))
        return path
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    return write_csv(path, rows, "\t" if path.suffix == ".tsv" else ",")


def read_records(path: Path, *columns: str, limits: Limits = SMALL) -> list[Record]:
    """Read every record of a file, by default with all columns."""
    with open_source(path, limits) as source:
        return list(source.read(columns or source.columns))


def shard(start: int) -> bytes:
    """Return ten rows as Parquet, with numbers for labels."""
    written, rows = io.BytesIO(), range(start, start + 10)
    pq.write_table(pa.table({"text": [f"row {i}" for i in rows], "label": [i % 2 for i in rows]}), written)
    return written.getvalue()


HUB_FILES = {
    "README.md": HUB_CARD.encode(),
    "en/train-00000-of-00002.parquet": shard(0),
    "en/train-00001-of-00002.parquet": shard(10),
    "en/test.csv": b"text,label\n" + b"".join(f"test {i},{i % 2}\n".encode() for i in range(12)),
    "de/rows.jsonl": "".join(json.dumps({"text": f"row {i}", "label": "xy"[i % 2]}) + "\n" for i in range(9)).encode(),
}
"""A data set of the Hub with two configurations, one of two splits."""
