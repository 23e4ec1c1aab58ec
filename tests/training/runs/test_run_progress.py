"""training/runs/run_progress.py: curves from events, read once, whole or half written, and thin enough to draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.events import EVENTS
from training.runs.run_progress import POINTS, STEPS_TIMED, EventReader, Progress, Series, progress_of


def write(folder: Path, *events: dict, tail: str = "") -> None:
    with (folder / EVENTS).open("a") as file:
        file.write("".join(json.dumps(event) + "\n" for event in events) + tail)


def step(n: int, **values: object) -> dict:
    return {"kind": "step", "at": 10.0 + 2 * n, "step": n, "steps": 40, "loss": 1 / n, **values}


def test_every_metric_has_a_curve_and_the_time_left_is_estimated(tmp_path: Path) -> None:
    assert progress_of(tmp_path) == Progress()
    phase = {"kind": "phase", "phase": "train", "at": 0}
    write(tmp_path, phase, step(1), step(2, memory=7, learning_rate=0.1), step(3))
    write(tmp_path, {"kind": "eval", "at": 17, "step": 3, "loss": 0.4, "accuracy": 0.75}, {"kind": "later", "x": 1})
    write(tmp_path, {"kind": "prepare", "at": 0, "part": 0.25})
    now = progress_of(tmp_path)
    assert (now.phase, now.step, now.steps, now.prepared, now.left_s) == ("train", 3, 40, 0.25, None)
    assert now.curves["loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert now.curves["memory"] == [(2, 7)] and now.curves["learning_rate"] == [(2, 0.1)]
    assert now.curves["eval_loss"] == [(3, 0.4)] and now.latest["eval_accuracy"] == 0.75
    write(tmp_path, *(step(n) for n in range(4, STEPS_TIMED)))
    assert progress_of(tmp_path).left_s is None
    write(tmp_path, step(STEPS_TIMED))
    assert progress_of(tmp_path).left_s == pytest.approx(2 * (40 - STEPS_TIMED))


def test_each_byte_is_read_once_and_an_incomplete_line_later(tmp_path: Path) -> None:
    whole = json.dumps(step(100))
    write(tmp_path, *(step(n) for n in range(1, 100)), tail=whole[:20])
    reader = EventReader(tmp_path)
    before = reader.read()
    with (tmp_path / EVENTS).open("r+b") as file:
        file.write(b"\0" * ((tmp_path / EVENTS).stat().st_size - 30))
    assert before.step == 99 and reader.read() is before, "nothing new, nothing computed"
    write(tmp_path, tail=whole[20:] + "\n")
    assert reader.read().step == len(reader.read().curves["loss"]) == 100


@pytest.mark.parametrize(
    "damaged",
    ["{", "[]", "null", '"step"', '{"kind": "step"}', '{"kind": "step", "step": "x", "steps": 1, "at": 1}',
     '{"kind": "phase"}', '{"kind": "step", "step": 9, "steps": 9, "at": 1, "loss": NaN, "memory": "much"}', "\udcff"],
)  # fmt: skip
def test_a_damaged_line_is_left_out(tmp_path: Path, damaged: str) -> None:
    write(tmp_path, step(1))
    with (tmp_path / EVENTS).open("ab") as file:
        file.write(damaged.encode("utf-8", "surrogateescape") + b"\n")
    write(tmp_path, step(10))
    assert progress_of(tmp_path).curves["loss"] == [(1, 1.0), (10, 0.1)]


def test_repeated_steps_replace_the_earlier_ones(tmp_path: Path) -> None:
    """A run was killed at step 5 and went on from its checkpoint of step 2; the pause in between took no time."""
    write(tmp_path, {"kind": "phase", "phase": "train", "at": 0}, *(step(n) for n in range(1, 6)))
    write(tmp_path, {"kind": "phase", "phase": "train", "at": 9000})
    write(tmp_path, *(step(n, at=9000.0 + n, loss=7.0) for n in range(3, 33)))
    now = progress_of(tmp_path)
    assert (now.step, now.left_s) == (32, pytest.approx(8))
    assert [n for n, _ in now.curves["loss"]] == [*range(1, 33)]
    assert [y for _, y in now.curves["loss"]][2:] == [7.0] * 30


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=3000), st.integers(2, 40))
def test_a_thin_curve_keeps_its_ends_and_its_peaks(values: list[float], half: int) -> None:
    series = Series()
    for number, value in enumerate(values):
        series.add(number, value)
    found = series.points(2 * half)
    assert len(found) <= 2 * half + 1 and found == sorted(set(found))
    assert all(values[n] == y for n, y in found)
    assert {y for _, y in found} >= {min(values), max(values)} and found[-1][0] == len(values) - 1


def test_a_long_run_is_thinned(tmp_path: Path) -> None:
    write(tmp_path, *(step(n, loss=9.0 if n == 777 else 1.0) for n in range(1, 20_001)))
    curve = progress_of(tmp_path).curves["loss"]
    assert len(curve) <= POINTS + 1 and (777, 9.0) in curve and curve[-1][0] == 20_000
