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
    """Make the keys and values of a prompt: in layer i, token t, `value` + t / 100 + i / 10."""
    ramps = [value + torch.arange(tokens) / 100 + layer / 10 for layer in range(LAYERS)]
    blocks = [ramp[None, None, :, None].expand(1, HEADS, tokens, WIDTH).contiguous() for ramp in ramps]
    return [(block, -block) for block in blocks]


def step(cache: BatchedKVCache, values: list[float]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Write a column, as a model's attention does in each layer."""
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


IDS = list(range(100, 140))


@pytest.fixture
def cache() -> PrefixCache:
    return PrefixCache()


def slot() -> Slot:
    version: Any = None
    return Slot(version, {}, {}, None)


def test_the_longest_common_beginning_is_found_but_never_the_whole_prompt(cache: PrefixCache) -> None:
    cache.keep(None, IDS[:20], states(20, 1))
    cache.keep(None, IDS, states(40, 1))
    assert len(cache._prompts) == 1, "a longer prompt takes the place of its beginning"
    assert cache.find(None, [*IDS, 1, 2])[0] == 40
    assert cache.find(None, IDS)[0] == 39, "the last token is read, or there would be no logits"
    length, found = cache.find(None, [*IDS[:20], 9, 9, 9])
    assert length == 20 and found[1][0].shape[-2] == 20
    assert cache.find(None, [*IDS[: SHORTEST_PREFIX - 1], 9, 9]) == cache.find(None, IDS[1:]) == (0, ())


def test_a_version_never_finds_what_another_made(cache: PrefixCache) -> None:
    one, other = slot(), slot()
    cache.keep(one, IDS, states(40, 1))
    assert [cache.find(each, [*IDS, 1])[0] for each in (one, other, None)] == [40, 0, 0]
    cache.keep(None, IDS, states(40, 2))
    assert [cache.find(each, [*IDS, 1])[1][0][0][0, 0, 0, 0] for each in (one, None)] == [1, 2]
    del one
    gc.collect()
    assert cache.find(other, [*IDS, 1]) == (0, ()), "what an evicted version made belongs to nobody"
    cache.keep(None, [*IDS[:20], 5], states(21, 1))
    assert len(cache._prompts) == 2 and cache.find(None, [*IDS, 1])[1][0][0][0, 0, 0, 0] == 2


def test_the_ones_used_longest_ago_make_room(cache: PrefixCache, monkeypatch: pytest.MonkeyPatch) -> None:
    assert token_bytes(states(5, 0)) == LAYERS * 2 * HEADS * WIDTH * 4 == 96
    monkeypatch.setattr(module, "PREFIX_BYTES", 96 * 100)
    for i in range(3):
        cache.keep(None, [i, *IDS], states(41, i))
        cache.find(None, [0, *IDS, 1])
    assert [cache.find(None, [i, *IDS, 1])[0] for i in range(3)] == [41, 0, 41]
