"""serving/generation/kv_cache.py: rows join, grow and leave, and each still finds its own keys and values."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.generation.kv_cache import RowsCache, State

HEADS, WIDTH, LAYERS = 2, 3, 2


def states(tokens: int, value: float) -> list[State]:
    """What a prompt of so many tokens left: in layer i, token t, `value` + t / 100 + i / 10."""
    made = []
    for layer in range(LAYERS):
        ramp = value + torch.arange(tokens) / 100 + layer / 10
        block = ramp[None, None, :, None].expand(1, HEADS, tokens, WIDTH).contiguous()
        made.append((block, -block))
    return made


def step(cache: RowsCache, values: list[float]) -> list[tuple[torch.Tensor, torch.Tensor]]:
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
    cache, rows, number = RowsCache(states(1, 0)), list[list[float]](), 0
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
    cache = RowsCache(states(1, 0))
    cache.add(states(50, 1))
    assert cache.mask() is None
    cache.add(states(3, 2))
    assert cache.mask() is not None
    cache.remove(0)
    assert cache.mask() is None and cache.length == 3 and cache.starts == [0]


def test_a_step_in_a_block_with_room_copies_nothing() -> None:
    cache = RowsCache(states(1, 0))
    cache.add(states(4, 1))
    before = cache.layers[0].blocks[0].data_ptr()
    for _ in range(30):
        step(cache, [1.0])
    cache.add(states(9, 1))
    rows, columns = cache.room
    assert rows == 2 and columns >= cache.length
    grown = cache.layers[0].blocks[0].data_ptr()
    assert grown != before, "a second row had no place"
    cache.remove(1)
    cache.add(states(2, 1))
    step(cache, [1.0, 1.0])
    assert cache.layers[0].blocks[0].data_ptr() == grown


def test_a_token_takes_what_its_keys_and_values_take() -> None:
    assert RowsCache(states(5, 0)).bytes_of_token == LAYERS * 2 * HEADS * WIDTH * 4 == pytest.approx(96)
