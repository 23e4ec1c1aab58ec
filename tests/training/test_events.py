"""training/events.py: one JSON object a line, readable while it is written."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from training.events import EVENTS, PHASES, Events, read_events


def test_events_are_read_back_in_order(tmp_path: Path) -> None:
    assert read_events(tmp_path) == []
    events = Events(tmp_path)
    for phase in PHASES:
        events.phase(phase, model="名/ü")
    events.emit("step", step=1, steps=2, loss=0.5, text="a\nb\u2028c\x85d")
    *phases, step = read_events(tmp_path)
    assert [(event["phase"], event["model"]) for event in phases] == [(phase, "名/ü") for phase in PHASES]
    assert (step["kind"], step["step"], step["text"]) == ("step", 1, "a\nb\u2028c\x85d")
    assert all(a["at"] <= b["at"] for a, b in itertools.pairwise([*phases, step]))


def test_an_incomplete_line_is_left_for_the_next_time(tmp_path: Path) -> None:
    """The file is cut at every byte, also inside a character."""
    events = Events(tmp_path)
    events.phase("data")
    events.phase("model", model="模型")
    whole = (tmp_path / EVENTS).read_bytes()
    for length in range(len(whole) + 1):
        (tmp_path / EVENTS).write_bytes(whole[:length])
        assert len(read_events(tmp_path)) == whole[:length].count(b"\n")


@pytest.mark.parametrize("damage", [b"\0" * 30, b"\xff\xfe", b'{"kind": "st', b"[1]"])
def test_a_line_that_a_crash_damaged_is_left_out(tmp_path: Path, damage: bytes) -> None:
    events = Events(tmp_path)
    events.phase("data")
    with (tmp_path / EVENTS).open("ab") as file:
        file.write(damage + b"\n")
    events.phase("model")
    assert [event["phase"] for event in read_events(tmp_path)] == ["data", "model"]
