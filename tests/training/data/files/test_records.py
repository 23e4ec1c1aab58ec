"""Tests of training/data/files/records.py: nested columns, and names of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Value

from tests.helpers.row_files import read_records, write
from training.data.files.formats import Limits
from training.data.files.readers import open_source
from training.data.files.records import cell, columns_of, name_labels, top_column

ROW: dict[str, Any] = {
    "id": 1,
    "answer": {"text": "a", "more": {"deep": True}},
    "answers": {"text": ["x", "y"], "start": [3]},
    "chat": [{"role": "user", "content": "hi"}],
    "a.b": "dotted",
    "a": {"b": "hidden", "c": 2},
}
INSIDE = (
    *("answer.text", "answer.more", "answer.more.deep", "answers.text", "answers.text.0", "answers.start"),
    *("answers.start.0", "chat.0", "chat.0.role", "chat.0.content", "a.c"),
)


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_nested_columns_are_offered_and_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "json":
        path.write_text(json.dumps([ROW, ROW]))
    else:
        write(path, [ROW, ROW])
    with open_source(path, Limits()) as source:
        assert source.columns[: len(ROW)] == tuple(ROW)
        assert set(source.columns[len(ROW) :]) == set(INSIDE)
        wanted = ["answer.text", "answers.text.1", "chat.0.content", "a.b", "a.c", "answers.text.7", "chat"]
        rows = list(source.read(wanted))
    assert len(rows) == 2
    found = [rows[0][name] for name in wanted]  # type: ignore[index]
    assert found == ["a", "y", "hi", "dotted", 2, None, ROW["chat"]]


def test_top_level_columns_come_before_nested_ones() -> None:
    rows: list[Any] = [{"id": 1, "wide": {str(i): i for i in range(500)}}, "a bad one", {"late": {"x": 1}}]
    assert columns_of(rows, 10) == ("id", "wide", "late", *(f"wide.{i}" for i in range(7)))
    assert columns_of(rows, 2) == ("id", "wide", "late")
    assert columns_of([{"a": {"\ud800": 1, " ": 2, "": 3}}], 9) == ("a",)


def test_a_missing_cell_is_none_and_the_longest_top_level_column_is_taken() -> None:
    names = "id.x answer.none answers.text.-1 answers.text.x answer..text none.x answers.text.99999999999 ."
    assert [cell(ROW, name) for name in ["", *names.split()]] == [None] * 9
    assert [top_column(name, ["a", "a.b", "c"]) for name in ("a.b.c", "a.c", "c", "x.y")] == ["a.b", "a", "c", "x.y"]


def test_label_numbers_become_names() -> None:
    values = [0, 1, -1, 2, "1", "-1", "no", "7", True, None, 0.0]
    named = [row["l"] for row in name_labels([{"l": value, "x": 0} for value in values], {"l": ["no", "yes"], "y": []})]
    assert named == ["no", "yes", None, 2, "yes", None, "no", 7, True, None, 0.0]
    assert list(name_labels(["bad"], {"l": ["no"]})) == ["bad"]


def test_label_names_are_read_from_parquet_metadata(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]}, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "a.parquet")
    assert [row["label"] for row in read_records(tmp_path / "a.parquet")] == ["good", "bad", None]  # type: ignore[index]


WRONG = [
    *(b"", b"{", b"[]", b'{"info": {"features": [1]}}', b'{"info": 1}', b"[" * 100_000),
    b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": "ab"}}}}',
    b'{"info": {"features": {"label": {"_type": "ClassLabel"}, "text": [1]}}}',
]


@pytest.mark.parametrize("metadata", WRONG)
def test_wrong_metadata_of_a_parquet_file_is_ignored(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet", "label") == [{"label": 1}]
