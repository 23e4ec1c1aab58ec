"""threats.py: every fault that must be survived has a test that shows it, and no test claims a row that is none."""

import re

from tests.helpers.child import run
from tests.threats import ROOT, ROWS, claimed, rows_of


def test_every_row_has_a_test() -> None:
    assert list(ROWS) == [f"R{number:02}" for number in range(1, 49)]
    found = claimed()
    assert set(found) - set(ROWS) == set(), "a test claims a row that there is not"
    assert set(ROWS) - set(found) == set(), "a row without a test"


def test_a_name_claims_its_rows() -> None:
    assert rows_of("test_r11_r20_a_write") == ["R11", "R20"]
    assert rows_of("TestR31Machine") == ["R31"]
    assert rows_of("test_rows_of") == rows_of("test_it_is_r11") == rows_of("helper_r11") == []


def test_the_list_names_every_row_and_its_tests() -> None:
    lines = run("-m", "tests.threats", "--list").stdout.splitlines()
    assert [line[:3] for line in lines if not line.startswith(" ")] == list(ROWS)
    assert sum(line.startswith("       tests/") for line in lines) == sum(map(len, claimed().values()))


def test_every_promise_rests_on_rows_that_are_shown() -> None:
    promises = re.findall(r"^\d\. (.*?)\(((?:R\d\d(?:, )?)+)\)$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)
    assert len(promises) == 8
    assert {row for _, rows in promises for row in rows.split(", ")} <= set(claimed())
