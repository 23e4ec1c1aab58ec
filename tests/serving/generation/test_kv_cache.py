"""kv_cache.py: each row finds its own keys and values as rows join and leave; each version its own prompts."""

from __future__ import annotations

import gc
import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.transformers_private import LayerState
from serving.base.slots import Slot
from serving.generation import kv_cache as module
from serving.generation.kv_cache import SHORTEST_PREFIX, BatchedKVCache, PrefixCache, token_bytes

HEADS, WIDTH, LAYERS = 2, 3, 2


def states(tokens: int, value: float) -> list[LayerState]:
    """What a prompt of so many tokens left: in layer i, token t, `value` + t / 100 + i / 10."""
    made = []
    for layer in range(LAYERS):
        ramp = value + torch.arange(tokens) / 100 + layer / 10
        block = ramp[None, None, :, None].expand(1, HEADS, tokens, WIDTH).contiguous()
        made.append((block, -block))
    return made


def step(cache: BatchedKVCache, values: list[float]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """One pass writes a column, as a model's attention does in each layer."""
    found = []
    for layer in range(LAYERS):
        column = torch.tensor(values)[:, None, None, None].expand(-1, HEADS, 1, WIDTH) + layer / 10
        found.append(cache.update(column, -column, layer))
    cache.advance()
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000))
def test_every_row_attends_to_its_own_tokens_whatever_joins_and_leaves(seed: int) -> None:
    chance = random.Random(seed)
    cache, rows, number = BatchedKVCache(states(1, 0)), list[list[float]](), 0
    for _ in range(40):
        action = chance.random()
        if (action < 0.3 and len(rows) < 6) or not rows:
            number += 1
            tokens = chance.randint(1, 90)
            cache.add(states(tokens, number))
            rows.append([number + t / 100 for t in range(tokens)])
        elif action < 0.5:
            gone = chance.randrange(len(rows))
            cache.remove(gone)
            last = rows.pop()
            if gone < len(rows):
                rows[gone] = last
        else:
            number += 1
            mask, positions = cache.mask(), cache.positions()
            assert positions == [[len(row)] for row in rows]
            for row in rows:
                row.append(float(number))
            found = step(cache, [float(number)] * len(rows))
            for layer, (keys, values) in enumerate(found):
                for i, row in enumerate(rows):
                    seen = slice(None) if mask is None else mask[i].bool()
                    held = keys[i, 0, seen, 0]
                    assert torch.allclose(held, torch.tensor(row) + layer / 10)
                    assert torch.equal(values[i, 0, seen, 0], -held)


def test_a_single_row_needs_no_mask_also_when_longer_ones_have_left() -> None:
    cache = BatchedKVCache(states(1, 0))
    cache.add(states(50, 1))
    assert cache.mask() is None
    cache.add(states(3, 2))
    assert cache.mask() is not None
    cache.remove(0)
    assert cache.mask() is None and cache.length == 3 and cache.starts == [0]


def test_a_step_in_a_block_with_room_copies_nothing() -> None:
    cache = BatchedKVCache(states(1, 0))
    cache.add(states(4, 1))
    before = cache.layers[0].blocks[0].data_ptr()
    for _ in range(30):
        step(cache, [1.0])
    cache.add(states(9, 1))
    rows, columns = cache._mask.shape
    assert rows == 2 and columns >= cache.length
    grown = cache.layers[0].blocks[0].data_ptr()
    assert grown != before, "a second row had no place"
    cache.remove(1)
    cache.add(states(2, 1))
    step(cache, [1.0, 1.0])
    assert cache.layers[0].blocks[0].data_ptr() == grown


def test_the_bytes_of_a_token_are_those_of_its_keys_and_values() -> None:
    assert token_bytes(states(5, 0)) == LAYERS * 2 * HEADS * WIDTH * 4 == 96


IDS = list(range(100, 140))


def slot() -> Slot:
    version: Any = None
    return Slot(version, {}, {}, None)


def test_the_longest_common_beginning_is_found_but_never_the_whole_prompt() -> None:
    known = PrefixCache()
    known.keep(None, IDS, states(40, 1))
    assert known.find(None, [*IDS, 1, 2])[0] == 40
    assert known.find(None, IDS)[0] == 39, "the last token is read, or there would be no logits"
    length, found = known.find(None, [*IDS[:20], 9, 9, 9])
    assert length == 20 and found[1][0].shape[-2] == 20
    assert known.find(None, [*IDS[: SHORTEST_PREFIX - 1], 9, 9]) == (0, ())
    assert known.find(None, IDS[1:]) == (0, ())


def test_a_version_never_finds_what_another_made() -> None:
    known, one, other = PrefixCache(), slot(), slot()
    known.keep(one, IDS, states(40, 1))
    assert known.find(one, [*IDS, 1])[0] == 40
    assert known.find(other, [*IDS, 1])[0] == 0 and known.find(None, [*IDS, 1])[0] == 0
    known.keep(None, IDS, states(40, 2))
    assert known.find(None, [*IDS, 1])[1][0][0][0, 0, 0, 0] == 2
    assert known.find(one, [*IDS, 1])[1][0][0][0, 0, 0, 0] == 1


def test_what_a_version_that_is_gone_made_belongs_to_nobody_least_to_the_base() -> None:
    known, one = PrefixCache(), slot()
    known.keep(one, IDS, states(40, 1))
    del one
    gc.collect()
    assert known.find(None, [*IDS, 1]) == (0, ())
    known.keep(None, [*IDS[:20], 5], states(21, 1))
    assert len(known._prompts) == 1


def test_a_longer_prompt_takes_the_place_of_its_beginning() -> None:
    known = PrefixCache()
    known.keep(None, IDS[:20], states(20, 1))
    known.keep(None, IDS, states(40, 1))
    assert len(known._prompts) == 1 and known.find(None, [*IDS, 1])[0] == 40


def test_the_ones_used_longest_ago_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PREFIX_BYTES", 96 * 100)
    known = PrefixCache()
    for i in range(3):
        known.keep(None, [i, *IDS], states(41, i))
        known.find(None, [0, *IDS, 1])
    assert known.find(None, [0, *IDS, 1])[0] == 41 and known.find(None, [2, *IDS, 1])[0] == 41
    assert known.find(None, [1, *IDS, 1])[0] == 0
