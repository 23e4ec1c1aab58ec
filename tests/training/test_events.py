"""training/events.py: one JSON object a line, readable while it is written."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from training.events import EVENTS, PHASES, Events, read_events


def test_events_are_read_back_in_order(tmp_path: Path) -> None:
    events = Events(tmp_path)
    for phase in PHASES:
        events.phase(phase, model="名/ü")
    events.emit("step", step=1, steps=2, loss=0.5)
    found = read_events(tmp_path)
    assert [e["phase"] for e in found[:-1]] == list(PHASES)
    assert found[0]["model"] == "名/ü"
    assert (found[-1]["kind"], found[-1]["step"]) == ("step", 1)
    assert all(a["at"] <= b["at"] for a, b in itertools.pairwise(found))


def test_no_file_means_no_events(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []


def test_a_value_with_line_ends_stays_one_line(tmp_path: Path) -> None:
    Events(tmp_path).emit("note", text="a\nb\u2028c\x85d")
    assert read_events(tmp_path)[0]["text"] == "a\nb\u2028c\x85d"


def test_every_half_of_a_line_is_left_for_the_next_time(tmp_path: Path) -> None:
    """The file is cut at every byte, also inside a character."""
    events = Events(tmp_path)
    events.phase("data")
    events.phase("model", model="模型")
    whole = (tmp_path / EVENTS).read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole)):
        (tmp_path / EVENTS).write_bytes(whole[:length])
        assert len(read_events(tmp_path)) == (1 if length >= first else 0)
    (tmp_path / EVENTS).write_bytes(whole)
    assert len(read_events(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"\0" * 30, b"\xff\xfe", b'{"kind": "st', b"[]"])
def test_a_line_that_a_crash_spoiled_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    events = Events(tmp_path)
    events.phase("data")
    with (tmp_path / EVENTS).open("ab") as file:
        file.write(damage + b"\n")
    events.phase("model")
    assert [e["phase"] for e in read_events(tmp_path)] == ["data", "model"]
