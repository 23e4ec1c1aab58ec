"""near.py and digests.py: rows that say nearly the same are found, and no others."""

from __future__ import annotations

import random
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from training.data.digests import QUICK, SPACES, plain
from training.data.inspect.near import ALIKE, find_near
from training.data.table import Sampled


def sampled(*texts: str) -> list[Sampled]:
    return [Sampled(i, {"text": text, "target": "x"}) for i, text in enumerate(texts, 1)]


def words(seed: int, count: int = 60) -> list[str]:
    numbers = random.Random(seed)
    return ["".join(numbers.choices("abcdefghij", k=6)) for _ in range(count)]


def test_one_changed_word_is_nearly_the_same_and_other_words_are_not() -> None:
    first, other = words(1), words(2)
    changed = [*first[:30], "changed", *first[31:]]
    near = find_near(sampled(" ".join(first), " ".join(other), " ".join(changed)), 0)
    assert (near.rows, near.same, near.alike) == (3, 0, 1)
    [pair] = near.pairs
    assert pair.numbers == (1, 3) and ALIKE <= pair.share < 1
    assert find_near(sampled(*(" ".join(words(i)) for i in range(50))), 0).alike == 0


def test_rows_that_differ_by_their_form_are_shown_and_not_counted_twice() -> None:
    near = find_near(sampled("My order is LATE!", "my order, is late", "something else"), 1)
    assert (near.same, near.alike) == (1, 0)
    assert [(pair.numbers, pair.share) for pair in near.pairs] == [((1, 2), 1.0)]


def test_short_and_empty_texts() -> None:
    assert find_near([], 0).pairs == ()
    near = find_near(sampled("a", "b", "", "!", "?", "é"), 0)
    assert near.alike == 0


def test_plain() -> None:
    assert plain("  Don't -  STOP!\n") == plain("don’t: stop") == b"don t stop"
    assert plain("Straße, Ｆｕｌｌ") == b"strasse full"
    assert plain("C++") != plain("C") and plain("1.5") != plain("15") and plain("?!") != plain("...")


@given(st.text(st.characters(max_codepoint=127)))
def test_the_quick_way_is_the_other_way(text: str) -> None:
    slow = " ".join(unicodedata.normalize("NFKC", text).casefold().translate(SPACES).split()).encode()
    assert b" ".join(text.encode().translate(QUICK).split()) == slow
