"""A report says what is there, survives JSON, and refuses what cannot be learned from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from errors import DataError
from training.report import (
    BadRow,
    Report,
    check_learnable,
    count_conflicts,
    count_labels,
    count_words,
    find_warnings,
)

GOOD = Report(
    file="a.csv",
    format="CSV",
    rows=12,
    usable=10,
    columns=("text", "label"),
    mapping={"text": "text", "target": "label"},
    bad=(BadRow(3, "text is empty"), BadRow(5, "duplicate of row 2")),
    duplicates=1,
    conflicts=0,
    labels={"b": 6, "a": 4},
    words={"median": 3, "max": 9},
    sample=({"text": "é \u2028", "target": "a"},),
    warnings=("Look.",),
)


def test_json_and_back():
    assert Report.from_json(GOOD.to_json()) == GOOD
    assert "\n" not in GOOD.to_json()


def test_counts():
    rows = [{"text": t, "target": y} for t, y in [("a b", "x"), ("a b ", "y"), ("c", "y"), ("d e f", "y")]]
    assert list(count_labels(rows, "label").items()) == [("y", 3), ("x", 1)]
    assert count_labels(rows, "text") == {}
    assert count_conflicts(rows) == 1
    assert count_words(rows) == {"median": 2, "max": 3}
    assert count_words([]) == {"median": 0, "max": 0}


@pytest.mark.parametrize(
    ("arguments", "warning"),
    [
        (({"a": 9, "b": 1}, 0, 10, 0), "1 label has one row only"),
        (({"a": 9, "b": 9}, 0, 18, 2), "2 texts have more than one label"),
        (({}, 3, 10, 0), "3 of 10 rows are left out"),
        (({"a": 99, "b": 3}, 0, 102, 0), "over 20 times"),
    ],
)
def test_warnings(arguments: Any, warning: str):
    (found,) = find_warnings(*arguments)
    assert found.startswith(warning) or warning in found


def test_no_warnings():
    assert find_warnings({"a": 5, "b": 5}, 1, 11, 0) == ()
    assert find_warnings({}, 0, 10, 4) == ()


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"rows": 0, "usable": 0, "bad": ()}, "has no rows"),
    ({"usable": 0}, "no usable row. Left out: text is empty (1 row); duplicate of row 2 (1 row)."),
    ({"usable": 7}, "only 7 rows to learn from"),
    ({"labels": {"a": 10}}, "All 10 usable rows are labelled 'a'"),
    ({"labels": {str(i): 1 for i in range(10)}}, "looks like free text"),
    ({"usable": 500, "labels": {str(i): 2 for i in range(201)}}, "201 different labels; at most 200"),
]


@pytest.mark.parametrize(("changes", "refusal"), REFUSED)
def test_refuses(changes: dict[str, Any], refusal: str):
    with pytest.raises(DataError) as caught:
        check_learnable(replace(GOOD, **changes), "label")
    assert refusal in str(caught.value)
    assert caught.value.next


def test_accepts():
    check_learnable(GOOD, "label")
    check_learnable(replace(GOOD, usable=8, labels={}), "text")
    check_learnable(replace(GOOD, usable=400, labels={str(i): 2 for i in range(200)}), "label")


def test_reasons_are_grouped_by_kind():
    bad = (*(BadRow(i, f"duplicate of row {i}") for i in range(1, 1001)), BadRow(2000, "text is empty"))
    with pytest.raises(DataError, match=r"duplicate of row 1 \(1,000 rows\); text is empty \(1 row\)"):
        check_learnable(replace(GOOD, usable=0, bad=bad), "text")
