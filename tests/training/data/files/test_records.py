"""records.py: columns inside others are named and found, and numbers of labels become their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Features, Value

from training.data.files.formats import Limits
from training.data.files.readers import open_source
from training.data.files.records import columns_of, name_labels, pick, top

ROW: dict[str, Any] = {
    "id": 1,
    "answer": {"text": "a", "more": {"deep": True}},
    "answers": {"text": ["x", "y"], "start": [3]},
    "chat": [{"role": "user", "content": "hi"}],
    "a.b": "dotted",
    "a": {"b": "hidden", "c": 2},
}
INSIDE = ("answer.text", "answer.more", "answer.more.deep", "answers.text", "answers.text.0", "answers.start",
          "answers.start.0", "chat.0", "chat.0.role", "chat.0.content", "a.c")  # fmt: skip


def write(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([ROW, ROW]), path)
    else:
        path.write_text(json.dumps([ROW, ROW]) if kind == "json" else f"{json.dumps(ROW)}\n" * 2)
    return path


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_columns_inside_others_are_offered_and_read(tmp_path: Path, kind: str) -> None:
    with open_source(write(tmp_path, kind), Limits()) as source:
        assert source.columns[: len(ROW)] == tuple(ROW)
        assert set(source.columns[len(ROW) :]) == set(INSIDE)
        wanted = ["answer.text", "answers.text.1", "chat.0.content", "a.b", "a.c", "answers.text.7", "chat"]
        rows = list(source.read(wanted))
    assert len(rows) == 2
    found = [rows[0][name] for name in wanted]  # type: ignore[index]
    assert found == ["a", "y", "hi", "dotted", 2, None, ROW["chat"]]


def test_columns_inside_others_do_not_crowd_out_the_others() -> None:
    rows: list[Any] = [{"id": 1, "wide": {str(i): i for i in range(500)}}, "a bad one", {"late": {"x": 1}}]
    assert columns_of(rows, 10) == ("id", "wide", "late", *(f"wide.{i}" for i in range(7)))
    assert columns_of(rows, 2) == ("id", "wide", "late")
    assert columns_of([{"a": {"\ud800": 1, " ": 2, "": 3}}], 9) == ("a",)


@pytest.mark.parametrize("name", ["id.x", "answer.none", "answers.text.-1", "answers.text.x", "answer..text", "none.x",
                                  "answers.text.99999999999", "", "."])  # fmt: skip
def test_what_is_not_there_is_none(name: str) -> None:
    assert pick(ROW, name) is None


def test_the_longest_column_holds_a_name() -> None:
    assert [top(name, ["a", "a.b", "c"]) for name in ("a.b.c", "a.c", "c", "x.y")] == ["a.b", "a", "c", "x.y"]


def test_numbers_become_the_names_of_labels() -> None:
    values = [0, 1, -1, 2, "1", "-1", "no", "7", True, None, 0.0]
    named = [row["l"] for row in name_labels([{"l": value, "x": 0} for value in values], {"l": ["no", "yes"], "y": []})]
    assert named == ["no", "yes", None, 2, "yes", None, "no", 7, True, None, 0.0]
    assert list(name_labels(["bad"], {"l": ["no"]})) == ["bad"]


def test_a_parquet_file_says_the_names_of_its_labels(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    table = pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]}, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "a.parquet")
    with open_source(tmp_path / "a.parquet", Limits()) as source:
        assert [row["label"] for row in source.read(["text", "label"])] == ["good", "bad", None]  # type: ignore[index]


WRONG = [
    b"", b"{", b"[]", b'{"info": {"features": [1]}}', b'{"info": 1}', b"[" * 100_000,
    b'{"info": {"features": {"label": {"_type": "ClassLabel", "names": "ab"}}}}',
    b'{"info": {"features": {"label": {"_type": "ClassLabel"}, "text": [1]}}}',
]  # fmt: skip


@pytest.mark.parametrize("told", WRONG)
def test_what_a_parquet_file_says_wrongly_is_ignored(tmp_path: Path, told: bytes) -> None:
    table = pa.table({"text": ["a"], "label": [1]}).replace_schema_metadata({b"huggingface": told})
    pq.write_table(table, tmp_path / "a.parquet")
    with open_source(tmp_path / "a.parquet", Limits()) as source:
        assert list(source.read(["label"])) == [{"label": 1}]
