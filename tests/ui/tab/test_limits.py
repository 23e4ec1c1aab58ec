"""ui/tab/answer.py: how much one request may say and ask for."""

from dataclasses import replace

import pytest

from errors import InputError
from settings import Settings
from ui.tab.answer import check

SMALL = replace(Settings(), text_length=20, new_tokens=8)


def test_all_that_a_request_says_counts_at_any_depth() -> None:
    turns = [{"role": "user", "content": "a" * 5}, {"role": "user", "content": [{"text": "b" * 5}]}]
    check(SMALL, {"text": "x" * 20, "times": 3, "nothing": None})
    for given in ({"text": "x" * 21}, {"text": "x" * 15, "history": turns}, {"deep": [["y" * 21]]}):
        with pytest.raises(InputError, match=r"the limit is 20 \(GRAFT_TEXT_LENGTH\)"):
            check(SMALL, given)


def test_an_answer_has_a_length() -> None:
    check(SMALL, {"text": "x", "max_new_tokens": 8})
    with pytest.raises(InputError, match=r"8 tokens \(GRAFT_NEW_TOKENS\)"):
        check(SMALL, {"text": "x", "max_new_tokens": 9})


def test_a_nesting_without_end_is_walked_without_recursion() -> None:
    deep: list = ["x" * 21]
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError):
        check(SMALL, {"deep": deep})
