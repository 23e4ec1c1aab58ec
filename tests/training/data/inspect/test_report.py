"""Tests of training/data/inspect/report.py: JSON and back, counts, warnings and refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from errors import DataError
from tests.helpers.row_files import REPORT
from training.data.inspect.report import (
    MOST_REASONS,
    OTHER_REASONS,
    BadRow,
    BadRows,
    Report,
    by_count,
    check_learnable,
    find_warnings,
)


def test_json_and_back():
    assert Report.from_json(REPORT.to_json()) == REPORT
    assert "\n" not in REPORT.to_json()


def test_labels_are_sorted_by_count():
    assert list(by_count({"x": 1, "z": 3, "y": 3}).items()) == [("y", 3), ("z", 3), ("x", 1)]


def test_reasons_that_quote_the_file_fill_no_memory():
    bad = BadRows()
    for number in range(MOST_REASONS + 50):
        bad.add(BadRow(number, f"the role {'x' * number!r}"))
    assert len(bad.reasons) == MOST_REASONS + 1
    assert bad.reasons[OTHER_REASONS] == 50


@pytest.mark.parametrize(
    ("labels", "left_out", "conflicts", "warning"),
    [
        ({"a": 9, "b": 1}, 0, 0, "1 label has one row only"),
        ({"a": 9, "b": 9}, 0, 2, "2 texts have more than one label"),
        ({}, 3, 0, "3 of 10 rows are left out"),
        ({"a": 199, "b": 6}, 0, 0, "over 20 times"),
        ({"a": 9, "b": 4}, 0, 0, "1 label has fewer than 5 rows"),
    ],
)
def test_a_warning_names_its_reason(labels: dict[str, int], left_out: int, conflicts: int, warning: str):
    changes = {"labels": labels, "rows": 10, "usable": 10 - left_out, "conflicts": conflicts}
    (found,) = find_warnings(replace(REPORT, **changes))
    assert warning in found


def test_a_good_report_has_no_warnings():
    assert find_warnings(replace(REPORT, labels={"a": 5, "b": 5})) == ()
    assert find_warnings(replace(REPORT, labels={}, conflicts=4)) == ()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rows": 0, "usable": 0, "bad": (), "reasons": {}}, "has no rows"),
    ({"usable": 0}, "no usable row. Left out: text is empty (1 row); duplicate of row 2 (1 row)."),
    ({"usable": 7}, "only 7 rows to learn from"),
    ({"labels": {"a": 10}}, "All 10 usable rows are labelled 'a'"),
    ({"labels": {str(i): 1 for i in range(10)}}, "looks like free text"),
    ({"usable": 402, "labels": {str(i): 2 for i in range(201)}}, "201 different labels; at most 200"),
]


@pytest.mark.parametrize(("changes", "refusal"), REFUSED)
def test_rows_that_teach_nothing_are_refused(changes: dict[str, Any], refusal: str):
    with pytest.raises(DataError, match=re.escape(refusal)):
        check_learnable(replace(REPORT, **changes), "label")


def test_few_good_rows_are_enough():
    check_learnable(REPORT, "label")
    check_learnable(replace(REPORT, usable=8, labels={}), "text")
    check_learnable(replace(REPORT, usable=400, labels={str(i): 2 for i in range(200)}), "label")


def test_reasons_are_grouped_by_kind():
    bad = BadRows()
    for row in (*(BadRow(i, f"duplicate of row {i}") for i in range(1, 1001)), BadRow(2000, "text is empty")):
        bad.add(row)
    with pytest.raises(DataError, match=r"duplicate of row 1 \(1,000 rows\); text is empty \(1 row\)"):
        check_learnable(replace(REPORT, usable=0, bad=bad.first, reasons=bad.reasons), "text")
