"""Tests of training/data/table.py: a file becomes rows and a report, or raises `DataError`; never another exception."""

from __future__ import annotations

import csv
import io
import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import DataError, GraftError
from tasks import Columns
from tests.helpers.row_files import TEN, write, write_csv, write_jsonl
from training.data.files.formats import Limits
from training.data.inspect.__main__ import write_bad_rows
from training.data.inspect.report import MOST_BAD, BadRow, Report
from training.data.rows import Row
from training.data.table import (
    ASCII,
    HALF,
    MOST_NAMES,
    SPACES,
    RowDigests,
    Sample,
    Table,
    count_conflicts,
    find_repeats,
    normalize,
    read_table,
    text_digest,
)

LABELS = Columns(text="text", target="label")
PAIRS = Columns(text="text", target="summary")
CHAT = Columns(messages="messages")


def usable_rows(path: Path, answers: Any, columns: Columns, **options: Any) -> tuple[Table, list[Row]]:
    """Read a table and its usable rows."""
    rows: list[Row] = []
    table = read_table(path, answers, columns, keep=rows.append, **options)
    return table, [row for row, usable in zip(rows, table.usable, strict=True) if usable]


def as_targets(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"text": row["text"], "target": row["label"]} for row in rows]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str):
    table, rows = usable_rows(write(tmp_path / f"rows{suffix}", TEN), "label", LABELS)
    assert rows == as_targets(TEN)
    report = table.report
    assert (report.file, report.format.lower()) == (f"rows{suffix}", suffix[1:])
    assert (report.rows, report.usable, report.bad, report.warnings) == (10, 10, (), ())
    assert report.labels == {"a": 5, "b": 5}
    assert report.columns == ("text", "label")
    assert report.mapping == {"text": "text", "target": "label"}
    assert report.words == {"median": 3, "max": 3}
    assert report.sample == tuple(as_targets(TEN)[:5])
    assert Report.from_json(report.to_json()) == report


def test_bad_rows_are_named_by_number_and_reason(tmp_path: Path):
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


def test_many_bad_rows_are_all_counted_and_the_first_named(tmp_path: Path):
    bad = [row for i in range(MOST_BAD) for row in ({"text": "", "label": i}, TEN[3])]
    table = read_table(write_jsonl(tmp_path / "a.jsonl", [*TEN, *bad]), "label", LABELS)
    report = table.report
    every = [BadRow(n, "duplicate of row 4" if n % 2 == 0 else "text is empty") for n in range(11, 11 + 2 * MOST_BAD)]
    assert (report.usable, report.left_out, report.rows) == (10, 2 * MOST_BAD, 10 + 2 * MOST_BAD)
    assert report.bad == tuple(every[:MOST_BAD])
    assert report.reasons == {"text is empty": MOST_BAD, "duplicate of row 4": MOST_BAD}
    assert [bad for bad, _ in table.bad_rows()] == every


def test_a_file_that_changed_is_not_read_again(tmp_path: Path):
    path = write_jsonl(tmp_path / "a.jsonl", TEN)
    table = read_table(path, "label", LABELS)
    for rows in (TEN[:9], [*TEN, TEN[0]]):
        write_jsonl(path, rows)
        with pytest.raises(DataError, match="changed while it was read"):
            list(table.bad_rows())


def test_more_labels_than_are_counted_are_refused(tmp_path: Path):
    rows = [{"text": f"text {i}", "label": f"label {i % (MOST_NAMES + 9)}"} for i in range(3 * MOST_NAMES)]
    with pytest.raises(DataError, match="have 1,000 or more different labels; at most 200"):
        read_table(write_jsonl(tmp_path / "a.jsonl", rows), "label", LABELS)


def test_progress_is_reported(tmp_path: Path):
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(5000)]
    for name in ("a.jsonl", "a.csv", "a.parquet"):
        seen: list[tuple[int, float]] = []
        read_table(write(tmp_path / name, rows), "label", LABELS, watch=lambda *at: seen.append(at))  # noqa: B023
        assert [done for done, _ in seen] == [1000, 2000, 3000, 4000, 5000]
        assert 0 < seen[0][1] <= 1 and seen == sorted(seen)


def test_a_chat_tab_reads_chats_and_pairs(tmp_path: Path):
    turns = [[{"role": "user", "content": f"q {i}"}, {"role": "assistant", "content": f"a {i}"}] for i in range(8)]
    pairs = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(8)]
    for name, rows in (
        ("chat.jsonl", [{"messages": turn} for turn in turns]),
        ("chat.parquet", [{"conversations": turn} for turn in turns]),
        ("chat.csv", [{"messages": json.dumps(turn)} for turn in turns]),
        ("pairs.jsonl", pairs),
    ):
        table, found = usable_rows(write(tmp_path / name, rows), "text", CHAT)
        assert found == [{"messages": turn} for turn in turns], name
        assert table.report.labels == {}
    with pytest.raises(DataError, match="no column for text and target"):
        read_table(tmp_path / "chat.jsonl", "text", PAIRS)


def test_a_file_without_rows_or_with_too_many_is_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_text("text,label\n")
    with pytest.raises(DataError, match="has no rows"):
        read_table(tmp_path / "a.csv", "label", LABELS)
    with pytest.raises(DataError, match="too many rows"):
        read_table(write_csv(tmp_path / "b.csv", TEN), "label", LABELS, limits=Limits(rows=9))


ODD = st.sampled_from(["a", "b", "None", "NA", "", '"', "\x00", "\ud800", "﻿", "a\r\nb", "[]"])
CELL = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), ODD)
NAMES = st.sampled_from([("text", "label"), ("Text", "LABEL", "id"), ("x", "y"), ("text",), ("text", "text")])


def read_or_refuse(path: Path, answers: Any, columns: Columns) -> None:
    """Check that the report accounts for every record of a file, or that the file is refused."""
    sample = Sample()
    try:
        table, usable = usable_rows(path, answers, columns, sample=sample, check=lambda report, answers: None)
    except GraftError as error:
        assert error.what
        assert path.parent.name not in str(error)
        return
    report, bad = table.report, [bad for bad, _ in table.bad_rows()]
    assert (len(usable), len(bad)) == (report.usable, report.left_out)
    assert len(table.texts) == len(table.labels) == len(usable) == len(sample.rows)
    assert tuple(bad) == report.bad and tuple(usable[:5]) == report.sample
    assert sum(report.reasons.values()) == len(bad)
    names = sorted(report.labels)
    assert [names[i] for i in table.labels if names] == [row["target"] for row in usable if names]
    assert Report.from_json(report.to_json()) == report
    assert table.contains(table.texts, table.normalized).all()
    assert write_bad_rows(table, path.with_suffix(".bad")) == report.left_out
    lines = path.with_suffix(".bad").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line).keys() == {"number", "reason", "row"} for line in lines)


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


MESSAGES = st.lists(st.dictionaries(st.sampled_from(["role", "content"]), CELL), max_size=2)
OBJECT = st.dictionaries(st.sampled_from(["text", "label", "messages"]), st.one_of(CELL, MESSAGES))


@HYPOTHESIS
@given(
    rows=st.lists(st.one_of(CELL, st.lists(CELL, max_size=2), OBJECT), max_size=14),
    kind=st.sampled_from([("label", LABELS), ("text", CHAT)]),
)
def test_r35_any_jsonl_is_read_or_refused(tmp_path: Path, rows: list[Any], kind: Any):
    read_or_refuse(write_jsonl(tmp_path / "a.jsonl", rows), *kind)


@HYPOTHESIS
@given(content=st.binary(max_size=200), name=st.sampled_from(["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"]))
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


def digests_of(rows: list[Row], by_label: bool = True) -> RowDigests:
    digests = RowDigests(0, by_label)
    for number, row in enumerate(rows, 1):
        digests.add(number, row)
    return digests


def test_the_digest_of_a_text_never_changes() -> None:
    assert text_digest(0, " a text\n") == text_digest(0, "a text") == 0x50F2C4A8F69C87FD
    assert text_digest(1, "a text") != text_digest(0, "a text") != text_digest(0, "a  text")


def test_a_normalized_text_has_no_case_and_no_punctuation() -> None:
    assert normalize("  Don't -  STOP!\n") == normalize("don’t: stop") == b"don t stop"
    assert normalize("Straße, Ｆｕｌｌ") == b"strasse full"
    assert normalize("C++") != normalize("C") and normalize("1.5") != normalize("15")
    assert normalize("?!") != normalize("...")


@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_text_is_normalized_as_other_text(text: str) -> None:
    slow = " ".join(unicodedata.normalize("NFKC", text).casefold().translate(SPACES).split()).encode()
    assert b" ".join(text.encode().translate(ASCII).split()) == slow


def test_restated_questions_are_counted(tmp_path: Path) -> None:
    rows = [*TEN, *({"text": text, "label": "a"} for text in ("TEXT number 1!", "text, number 1", "text number 11"))]
    report = read_table(write_jsonl(tmp_path / "a.jsonl", rows), "label", LABELS).report
    assert (report.restated, report.usable, report.duplicates) == (2, 13, 0)


@given(st.lists(st.tuples(st.sampled_from("ab "), st.sampled_from("xy"), st.booleans()), max_size=20))
def test_repeats_are_those_of_a_search_row_by_row(cells: list[tuple[str, str, bool]]) -> None:
    rows = [{"text": f"{' ' * wide}{text}", "target": target} for text, target, wide in cells]
    first: dict[tuple[str, str], int] = {}
    expected = []
    for index, row in enumerate(rows):
        earlier = first.setdefault((row["text"].strip(), row["target"]), index)
        expected += [(index, earlier)] if earlier != index else []
    later, firsts = find_repeats(digests_of(rows).rows["content"])
    assert list(zip(later.tolist(), firsts.tolist(), strict=True)) == expected


def test_conflicts_words_and_labels_are_counted() -> None:
    digests = digests_of([{"text": t, "target": y} for t, y in [("a b", "x"), ("a b ", "y"), ("c", "y"), ("d", "w")]])
    rows = digests.rows
    assert [count_conflicts(some["text"], some["answer"]) for some in (rows, rows[[0, 2]], rows[:0])] == [1, 0, 0]
    assert rows["words"].tolist() == [2, 2, 1, 1] and rows["number"].tolist() == [1, 2, 3, 4]
    assert digests.labels().tolist() == [1, 2, 2, 0] and digests.names == {"x": 0, "y": 1, "w": 2}
    chats: list[Row] = [
        {"messages": [{"role": "au"[i % 2], "content": content} for i, content in enumerate(contents, 1)]}
        for contents in (("a", "b"), ("a", "b "), ("a", "c"), ("a", "b", "a", "b"))
    ]
    rows = digests_of(chats, by_label=False).rows
    assert [found.tolist() for found in find_repeats(rows["content"])] == [[1], [0]]
    assert count_conflicts(rows["text"], rows["answer"]) == 1, "by the last answer"


def sample_of(texts: list[str], rows: int, characters: int = 10**9) -> list[str]:
    sample = Sample(rows, characters)
    for number, text in enumerate(texts, 1):
        sample.add(number, text_digest(0, text), hash(text), {"text": text, "target": ""})
    return [row["text"] for row in sample.rows]


@given(st.lists(st.text(max_size=20), max_size=60), st.integers(1, 20), st.integers(0, 200))
def test_a_sample_has_the_rows_of_smallest_priority(texts: list[str], rows: int, characters: int) -> None:
    taken = sample_of(texts, rows, characters)
    assert len(taken) <= rows and (sum(map(len, taken)) <= characters or len(taken) == 1)
    assert taken == [text for text in dict.fromkeys(texts) if text in taken], "once, and in the order of the file"
    priorities = {text: text_digest(0, text) & HALF for text in texts}
    last = max((priorities[text] for text in taken), default=-1)
    assert all(text in taken for text in texts if priorities[text] < last)


def test_a_sample_prefers_no_part_of_a_file() -> None:
    texts = [f"text {i} {'long ' * (i % 50)}" for i in range(2_000)]
    taken = sample_of(texts, 200)
    assert len(taken) == 200 and 70 <= sum(texts.index(text) < 1_000 for text in taken) <= 130
    assert sample_of(texts[::-1], 200) == taken[::-1]
