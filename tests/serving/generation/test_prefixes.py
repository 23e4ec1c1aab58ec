"""serving/generation/kv_cache.py: what is known of a prompt is found by the version that made it, and by no other."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from serving.base.slots import Slot
from serving.generation import kv_cache as module
from serving.generation.kv_cache import LEAST, Prefixes
from tests.serving.generation.test_kv_cache import states

IDS = list(range(100, 140))


def slot() -> Slot:
    version: Any = None
    return Slot(version, {}, {}, None)


def test_the_longest_common_beginning_is_found_but_never_the_whole_prompt() -> None:
    known = Prefixes()
    known.keep(None, IDS, states(40, 1))
    assert known.find(None, [*IDS, 1, 2])[0] == 40
    assert known.find(None, IDS)[0] == 39, "the last token is read, or there would be no logits"
    length, found = known.find(None, [*IDS[:20], 9, 9, 9])
    assert length == 20 and found[1][0].shape[-2] == 20
    assert known.find(None, [*IDS[: LEAST - 1], 9, 9]) == (0, ())
    assert known.find(None, IDS[1:]) == (0, ())


def test_a_version_never_finds_what_another_made() -> None:
    known, one, other = Prefixes(), slot(), slot()
    known.keep(one, IDS, states(40, 1))
    assert known.find(one, [*IDS, 1])[0] == 40
    assert known.find(other, [*IDS, 1])[0] == 0 and known.find(None, [*IDS, 1])[0] == 0
    known.keep(None, IDS, states(40, 2))
    assert known.find(None, [*IDS, 1])[1][0][0][0, 0, 0, 0] == 2
    assert known.find(one, [*IDS, 1])[1][0][0][0, 0, 0, 0] == 1


def test_what_a_version_that_is_gone_made_belongs_to_nobody_least_to_the_base() -> None:
    known, one = Prefixes(), slot()
    known.keep(one, IDS, states(40, 1))
    del one
    gc.collect()
    assert known.find(None, [*IDS, 1]) == (0, ())
    known.keep(None, [*IDS[:20], 5], states(21, 1))
    assert len(known._entries) == 1


def test_a_longer_prompt_takes_the_place_of_its_beginning() -> None:
    known = Prefixes()
    known.keep(None, IDS[:20], states(20, 1))
    known.keep(None, IDS, states(40, 1))
    assert len(known._entries) == 1 and known.find(None, [*IDS, 1])[0] == 40


def test_the_ones_used_longest_ago_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 96 * 100)
    known = Prefixes()
    for i in range(3):
        known.keep(None, [i, *IDS], states(41, i))
        known.find(None, [0, *IDS, 1])
    assert known.find(None, [0, *IDS, 1])[0] == 41 and known.find(None, [2, *IDS, 1])[0] == 41
    assert known.find(None, [1, *IDS, 1])[0] == 0
