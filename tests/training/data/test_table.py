"""From a file to rows and a report, or to one refusal; never another exception."""

from __future__ import annotations

import csv
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import DataError, GraftError
from settings import REPOSITORY
from tasks import Columns
from training.data.digests import MOST_NAMES
from training.data.inspect.report import MOST_BAD, BadRow
from training.data.rows import parse_columns
from training.data.table import Limits, Report, Table, read_table

ROOT = REPOSITORY
LABELS = Columns(text="text", target="label")
PAIRS = Columns(text="text", target="summary")
CHAT = Columns(messages="messages")
TEN = [{"text": f"text number {i}", "label": "ab"[i % 2]} for i in range(10)]


def write_csv(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8", end: str = "\n", cut: str = ",") -> Path:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter=cut, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode(encoding))
    return path


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """`rows` in the format that the name says."""
    if path.suffix == ".jsonl":
        return write_jsonl(path, rows)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    return write_csv(path, rows, cut="\t" if path.suffix == ".tsv" else ",")


def as_targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"text": row["text"], "target": row["label"]} for row in rows]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str):
    table = read_table(write(tmp_path / f"rows{suffix}", TEN), "label", LABELS)
    assert list(table.rows()) == as_targets(TEN)
    report = table.report
    assert (report.file, report.format.lower()) == (f"rows{suffix}", suffix[1:])
    assert (report.rows, report.usable, report.bad, report.warnings) == (10, 10, (), ())
    assert report.labels == {"a": 5, "b": 5}
    assert report.columns == ("text", "label")
    assert report.mapping == {"text": "text", "target": "label"}
    assert report.words == {"median": 3, "max": 3}
    assert report.sample == tuple(as_targets(TEN)[:5])
    assert Report.from_json(report.to_json()) == report


def test_bad_rows_have_their_numbers_and_reasons(tmp_path: Path):
    rows = [*TEN, {"text": " ", "label": "a"}, {"text": "x", "label": ""}, {"text": " text number 3 ", "label": "b"}]
    rows += [{"text": "x" * 101, "label": "a"}, {"text": "text number 0", "label": "b"}]
    report = read_table(write_csv(tmp_path / "a.csv", rows), "label", LABELS, limits=Limits(cell=100)).report
    assert [(bad.number, bad.reason) for bad in report.bad] == [
        (11, "text is empty"),
        (12, "target is empty"),
        (13, "duplicate of row 4"),
        (14, "text has 101 characters, more than 100"),
    ]
    assert (report.rows, report.usable, report.duplicates, report.conflicts) == (15, 11, 1, 1)
    assert report.reasons == {bad.reason: 1 for bad in report.bad}
    assert "1 text has more than one label." in report.warnings


def test_repeats_of_several_rows_are_named_in_their_order(tmp_path: Path):
    later = [{"text": f" text number {i} ", "label": "ab"[i % 2]} for i in (7, 2, 7)]
    table = read_table(write_csv(tmp_path / "a.csv", [*TEN, *later]), "label", LABELS)
    assert [(bad.number, bad.reason) for bad in table.report.bad] == [
        (11, "duplicate of row 8"), (12, "duplicate of row 3"), (13, "duplicate of row 8")]  # fmt: skip
    assert list(table.rows()) == as_targets(TEN)
    assert (table.report.duplicates, table.report.left_out, table.report.reasons) == (3, 3, {"duplicate of row 8": 3})


def test_of_many_bad_rows_the_first_are_named_and_all_are_counted_and_told(tmp_path: Path):
    bad = [row for i in range(MOST_BAD) for row in ({"text": "", "label": i}, TEN[3])]
    table = read_table(write_jsonl(tmp_path / "a.jsonl", [*TEN, *bad]), "label", LABELS)
    report = table.report
    every = [BadRow(n, "duplicate of row 4" if n % 2 == 0 else "text is empty") for n in range(11, 11 + 2 * MOST_BAD)]
    assert (report.usable, report.left_out, report.rows) == (10, 2 * MOST_BAD, 10 + 2 * MOST_BAD)
    assert report.bad == tuple(every[:MOST_BAD])
    assert report.reasons == {"text is empty": MOST_BAD, "duplicate of row 4": MOST_BAD}
    assert [bad for bad, _ in table.bad_rows()] == every


def test_a_file_that_changed_is_not_read_on(tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", TEN)
    table = read_table(path, "label", LABELS)
    for rows in (TEN[:9], [*TEN, TEN[0]], [*TEN[:9], {"text": ""}]):
        write_jsonl(path, rows)
        with pytest.raises(DataError, match="changed while it was read"):
            list(table.rows())


def test_more_labels_than_are_told_apart(tmp_path: Path):
    rows = [{"text": f"text {i}", "label": f"label {i % (MOST_NAMES + 9)}"} for i in range(3 * MOST_NAMES)]
    with pytest.raises(DataError, match="have 1,000 or more different labels; at most 200"):
        read_table(write_jsonl(tmp_path / "a.jsonl", rows), "label", LABELS)


def test_progress_is_told(tmp_path: Path):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(5000)]
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        told: list[tuple[int, float]] = []
        read_table(write(tmp_path / name, rows), "label", LABELS, watch=lambda *at: told.append(at))  # noqa: B023
        assert [done for done, _ in told] == [1000, 2000, 3000, 4000, 5000]
        assert 0 < told[0][1] <= told[-1][1] <= 1 and [part for _, part in told] == sorted(part for _, part in told)


def test_a_bad_line_of_jsonl_is_one_bad_row(tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", TEN)
    path.write_text("{oops\n" + path.read_text() + '{"text": null, "label": 1}\n{"text": "x"}\n')
    report = read_table(path, "label", LABELS).report
    assert [bad.number for bad in report.bad] == [1, 12, 13]
    assert [bad.reason for bad in report.bad][1:] == ["text is missing", "target is missing"]


def test_chats_and_pairs_for_a_chat_tab(tmp_path: Path):
    turns = [[{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"a {i}"}] for i in range(8)]
    pairs = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(8)]
    for name, rows in (
        ("chat.jsonl", [{"messages": turn} for turn in turns]),
        ("chat.parquet", [{"conversations": turn} for turn in turns]),
        ("chat.csv", [{"messages": json.dumps(turn)} for turn in turns]),
        ("pairs.jsonl", pairs),
    ):
        table = read_table(write(tmp_path / name, rows), "text", CHAT)
        assert list(table.rows()) == [{"messages": turn} for turn in turns], name
        assert table.report.labels == {}
    with pytest.raises(DataError, match="no column for text and target"):
        read_table(tmp_path / "chat.jsonl", "text", PAIRS)


def test_numbers_are_labels(tmp_path: Path):
    for suffix in (".jsonl", ".parquet"):
        rows = [{"text": f"t {i}", "label": float(i % 3)} for i in range(9)]
        assert set(read_table(write(tmp_path / f"a{suffix}", rows), "label", LABELS).report.labels) == {"0", "1", "2"}


@pytest.mark.parametrize(
    ("rows", "refusal"),
    [
        (TEN[:7], "only 7 rows"),
        ([row | {"label": "a"} for row in TEN], "one label only"),
        ([row | {"label": row["text"]} for row in TEN], "looks like free text"),
        ([row | {"text": " "} for row in TEN], "no usable row. Left out: text is empty (10 rows)"),
        ([{"id": 1, "words": "x"}] * 10, "no column for text and target"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_refuses(tmp_path: Path, suffix: str, rows: list[dict[str, Any]], refusal: str):
    with pytest.raises(DataError) as caught:
        read_table(write(tmp_path / f"a{suffix}", rows), "label", LABELS)
    assert refusal in str(caught.value)


def test_refuses_names_of_columns_alone_and_too_many_rows(tmp_path: Path):
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="has no rows"):
        read_table(tmp_path / "a.csv", "label", LABELS)
    with pytest.raises(DataError, match="too many rows"):
        read_table(write_csv(tmp_path / "b.csv", TEN), "label", LABELS, limits=Limits(rows=9))


def test_a_choice_of_columns_is_taken_as_it_is(tmp_path: Path):
    path = write_csv(tmp_path / "a.csv", [row | {"kind": "xy"[i % 2]} for i, row in enumerate(TEN)])
    assert read_table(path, "label", LABELS, {"target": "kind"}).report.labels == {"x": 5, "y": 5}
    with pytest.raises(DataError, match="no column 'sort'"):
        read_table(path, "label", LABELS, {"target": "sort"})


CELL = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["a", "b", "None", "NA", "", '"', "\x00", "\ud800", "﻿", "a\r\nb", "[]"]),
)  # fmt: skip
NAMES = st.sampled_from([("text", "label"), ("Text", "LABEL", "id"), ("x", "y"), ("text",), ("text", "text")])


def read_or_refuse(path: Path, answers: Any, columns: Columns) -> None:
    try:
        table = read_table(path, answers, columns)
    except GraftError as error:
        assert error.what
        assert path.parent.name not in str(error)
    else:
        assert isinstance(table, Table)
        usable, bad = list(table.rows()), [bad for bad, _ in table.bad_rows()]
        assert (len(usable), len(bad)) == (table.report.usable, table.report.left_out)
        assert len(table.texts) == len(table.labels) == len(usable)
        assert tuple(bad) == table.report.bad and tuple(usable[:5]) == table.report.sample
        assert sum(table.report.reasons.values()) == len(bad)
        names = sorted(table.report.labels)
        assert [names[i] for i in table.labels if names] == [row["target"] for row in usable if names]
        assert Report.from_json(table.report.to_json()) == table.report


HYPOTHESIS = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@HYPOTHESIS
@given(
    names=NAMES,
    rows=st.lists(st.tuples(CELL, CELL, CELL), max_size=14),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]),
    end=st.sampled_from(["\n", "\r\n"]),
    kind=st.sampled_from([("label", LABELS), ("text", PAIRS), ("text", CHAT)]),
)
def test_r35_any_csv_is_read_or_refused(tmp_path: Path, names: Any, rows: Any, encoding: str, end: str, kind: Any):
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([names, *(row[: len(names)] for row in rows)])
    path = tmp_path / "a.csv"
    path.write_bytes(text.getvalue().encode(encoding, "replace"))
    read_or_refuse(path, *kind)


@HYPOTHESIS
@given(
    rows=st.lists(
        st.one_of(CELL, st.lists(CELL, max_size=2), st.dictionaries(st.sampled_from(["text", "label", "messages"]),
                  st.one_of(CELL, st.lists(st.dictionaries(st.sampled_from(["role", "content"]), CELL), max_size=2)))),
        max_size=14,
    ),
    kind=st.sampled_from([("label", LABELS), ("text", CHAT)]),
)  # fmt: skip
def test_r35_any_jsonl_is_read_or_refused(tmp_path: Path, rows: list[Any], kind: Any):
    read_or_refuse(write_jsonl(tmp_path / "a.jsonl", rows), *kind)


@HYPOTHESIS
@given(content=st.binary(max_size=200), name=st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.parquet"]))
def test_r23_any_bytes_are_read_or_refused(tmp_path: Path, content: bytes, name: str):
    (tmp_path / name).write_bytes(content)
    read_or_refuse(tmp_path / name, "label", LABELS)


def test_r23_a_damaged_parquet_is_read_or_refused(tmp_path: Path):
    whole = write(tmp_path / "whole.parquet", TEN).read_bytes()
    chance = random.Random(0)
    for _ in range(100):
        damaged = bytearray(whole)
        damaged[chance.randrange(4, len(whole) - 4)] ^= 1 << chance.randrange(8)
        (tmp_path / "a.parquet").write_bytes(damaged)
        read_or_refuse(tmp_path / "a.parquet", "label", LABELS)
    for end in range(8, len(whole), 97):
        (tmp_path / "a.parquet").write_bytes(whole[:end])
        with pytest.raises(DataError):
            read_table(tmp_path / "a.parquet", "label", LABELS)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    for suffix in (".csv", ".jsonl", ".parquet"):
        read_table(write(tmp_path / f"a{suffix}", TEN), "label", LABELS)
    with pytest.raises(DataError):
        read_table(write(tmp_path / "a.csv", TEN[:3]), "label", LABELS)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_parse_columns():
    assert parse_columns("text=body, target=a=b,") == {"text": "body", "target": "a=b"}
    for wrong in ("text", "text=", "=x", "topic=x"):
        with pytest.raises(DataError, match="cannot be read"):
            parse_columns(wrong)
