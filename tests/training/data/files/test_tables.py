"""Any table at all is a report or a `GraftError`: byte order marks, CRLF, nulls, any Unicode, mixed types, few rows."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import GraftError
from tasks import Columns
from training.data.inspect.__main__ import write_bad_rows
from training.data.inspect.near import find_near
from training.data.table import Sample, read_table

CELLS = st.one_of(st.text(max_size=30), st.none(), st.booleans(), st.integers(), st.floats(), st.just([1, "a"]))
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)
ANSWERS = st.sampled_from(["label", "text"])
QUICK = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def look(path: Path, answers: str) -> None:
    """What the child does with a file, nothing left out of the report unaccounted for."""
    sample, columns = Sample(), Columns(text="text", target="label")
    try:
        table = read_table(path, answers, columns, sample=sample, check=lambda report, answers: None)  # type: ignore[arg-type]
    except GraftError:
        return
    report = table.report
    assert type(report).from_json(report.to_json()) == report
    assert write_bad_rows(table, path.with_suffix(".bad")) == report.left_out
    lines = path.with_suffix(".bad").read_text(encoding="utf-8").splitlines()
    assert all(json.loads(line).keys() == {"number", "reason", "row"} for line in lines)
    assert find_near(sample.first(), table.restated()).rows == len(list(table.rows())) == report.usable
    assert table.asked_in(table).all()


@QUICK
@given(st.lists(st.tuples(CELLS, CELLS), max_size=12), st.booleans(), st.sampled_from(["\n", "\r\n"]), ANSWERS)
def test_objects(tmp_path: Path, rows: list[tuple[object, object]], mark: bool, end: str, answers: str) -> None:
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * mark + end.join(lines).encode())
    look(path, answers)


@QUICK
@given(st.lists(st.lists(TEXTS, max_size=3), max_size=12), st.booleans(), st.sampled_from(["\n", "\r\n"]), ANSWERS)
def test_cells(tmp_path: Path, rows: list[list[str]], mark: bool, end: str, answers: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows([["text", "label"], *rows])
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbf" * mark + text.getvalue().encode())
    look(path, answers)


@QUICK
@given(st.binary(max_size=200), st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet"]), ANSWERS)
def test_bytes(tmp_path: Path, content: bytes, suffix: str, answers: str) -> None:
    path = tmp_path / f"rows{suffix}"
    path.write_bytes(content)
    look(path, answers)
