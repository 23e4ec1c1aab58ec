"""training/runs/run_progress.py: curves from events, read once, whole or half written, and thin enough to draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.events import EVENTS
from training.runs.run_progress import POINTS, STEPS_TIMED, EventReader, Progress, Series, progress_of


def write(folder: Path, *events: dict, mode: str = "a", tail: str = "") -> None:
    with (folder / EVENTS).open(mode) as file:
        file.write("".join(json.dumps(event) + "\n" for event in events) + tail)


def step(n: int, **values: object) -> dict:
    return {"kind": "step", "at": 10.0 + 2 * n, "step": n, "steps": 40, "loss": 1 / n, **values}


def test_nothing_yet_is_a_start(tmp_path: Path) -> None:
    assert progress_of(tmp_path) == Progress()


def test_every_series_and_the_time_left(tmp_path: Path) -> None:
    write(
        tmp_path, {"kind": "phase", "phase": "train", "at": 0}, step(1), step(2, memory=7, learning_rate=0.1), step(3)
    )
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


def test_what_is_half_written_is_left_for_the_next_time(tmp_path: Path) -> None:
    whole = json.dumps(step(2))
    write(tmp_path, step(1), tail=whole[:20])
    assert progress_of(tmp_path).step == 1
    write(tmp_path, tail=whole[20:] + "\n")
    assert progress_of(tmp_path).step == 2


def test_each_byte_is_read_once(tmp_path: Path) -> None:
    """What was read may become anything: only what comes behind it matters."""
    write(tmp_path, *(step(n) for n in range(1, 100)))
    reader = EventReader(tmp_path)
    before = reader.read()
    size = (tmp_path / EVENTS).stat().st_size
    with (tmp_path / EVENTS).open("r+b") as file:
        file.write(b"\0" * (size - 1))
    assert reader.read() is before, "nothing new, nothing made anew"
    write(tmp_path, step(100))
    assert len(reader.read().curves["loss"]) == 100


def test_a_file_that_begins_anew_is_read_anew(tmp_path: Path) -> None:
    write(tmp_path, *(step(n) for n in range(1, 9)))
    assert progress_of(tmp_path).step == 8
    write(tmp_path, step(1), mode="w")
    assert progress_of(tmp_path).curves["loss"] == [(1, 1.0)]


@pytest.mark.parametrize(
    "spoiled",
    ["{", "[]", "null", '"step"', '{"kind": "step"}', '{"kind": "step", "step": "x", "steps": 1, "at": 1}',
     '{"kind": "phase"}', '{"kind": "step", "step": 9, "steps": 9, "at": 1, "loss": NaN, "memory": "much"}', "\udcff"],
)  # fmt: skip
def test_a_spoiled_line_is_passed_over(tmp_path: Path, spoiled: str) -> None:
    write(tmp_path, step(1))
    with (tmp_path / EVENTS).open("ab") as file:
        file.write(spoiled.encode("utf-8", "surrogateescape") + b"\n")
    write(tmp_path, step(10))
    assert progress_of(tmp_path).curves["loss"] == [(1, 1.0), (10, 0.1)]


def test_steps_that_come_again_count_as_they_were_last(tmp_path: Path) -> None:
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


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(-9, 9)), max_size=60))
def test_the_last_value_of_each_step_is_kept(events: list[tuple[int, float]]) -> None:
    series, kept = Series(), dict[int, float]()
    for number, value in events:
        series.add(number, value)
        kept = {n: y for n, y in kept.items() if n < number} | {number: value}
    assert series.points() == sorted(kept.items())


def test_a_long_run_is_thinned(tmp_path: Path) -> None:
    write(tmp_path, *(step(n, loss=9.0 if n == 777 else 1.0) for n in range(1, 20_001)))
    curve = progress_of(tmp_path).curves["loss"]
    assert len(curve) <= POINTS + 1 and (777, 9.0) in curve and curve[-1][0] == 20_000
