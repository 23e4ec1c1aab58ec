"""plot.py: axes with round numbers around every value, lines that can be told apart, and no markup from names."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ui.html.plot import HEIGHT, PATTERNS, WIDTH, Curve, count, plot, scale
from ui.html.theme import STYLE

values = st.floats(-1e9, 1e9, allow_subnormal=False).map(lambda y: round(y, 6))


@given(values, values, st.integers(2, 8))
def test_a_scale_holds_both_and_has_round_steps(one: float, other: float, ticks: int) -> None:
    low, high, step = scale(min(one, other), max(one, other), ticks)
    tolerance = 1e-6 * step
    assert low <= min(one, other) + tolerance and high >= max(one, other) - tolerance and high > low
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-12)
    assert any(math.isclose(mantissa, nice, rel_tol=1e-6) for nice in (1, 2, 2.5, 5, 10))
    assert 1 <= round((high - low) / step) <= 2 * ticks + 2


@pytest.mark.parametrize(("n", "said"), [(0, "0"), (40, "40"), (1500, "1500"), (2000, "2k"), (25_000, "25k"),
                                         (200_000, "200k"), (1_000_000, "1M"), (2.5e7, "25M")])  # fmt: skip
def test_steps_are_written_short(n: float, said: str) -> None:
    assert count(n) == said


@given(st.lists(st.tuples(st.integers(0, 10**6), values), min_size=2, max_size=30))
def test_every_point_lies_in_the_drawing(points: list[tuple[int, float]]) -> None:
    shown = plot("loss", [Curve("a", sorted(points))])
    course = re.search(r'd="(M[^"]*L[^"]*)" class="g-stroke', shown)
    assert course
    found = [tuple(map(float, point.split())) for point in course[1][1:].split("L")]
    assert len(found) == len(points)
    assert all(-0.1 <= x <= WIDTH + 0.1 and -0.1 <= y <= HEIGHT + 0.1 for x, y in found)


def test_axes_say_numbers_and_a_lone_line_needs_no_legend() -> None:
    shown = plot("Loss", [Curve("a", [(0, 0.1), (100, 0.4)])], 200)
    assert re.findall(r"top:[\d.]+%\">([^<]+)<", shown) == ["0.1", "0.2", "0.3", "0.4"]
    assert re.findall(r"left:[\d.]+%\"[^>]*>([^<]+)<", shown) == ["0", "50", "100", "150", "200"]
    assert "g-legend" not in shown


def test_several_lines_differ_in_colour_and_pattern() -> None:
    shown = plot("Loss", [Curve(f"run {n}", [(0, n), (1, n)]) for n in range(PATTERNS)])
    assert all(f"g-stroke g-look{n}" in shown and f"run {n}" in shown for n in range(PATTERNS))
    style = STYLE.read_text(encoding="utf-8")
    looks = [re.search(rf"^\.g-look{n} {{ --g-look: (#\w+);(.*)}}$", style, re.MULTILINE) for n in range(PATTERNS)]
    assert all(looks) and len({look.groups() for look in looks if look}) == PATTERNS
    assert len({look[2] for look in looks if look}) == PATTERNS, "by the pattern alone"
    assert all(f".dark .g-look{n} {{" in style for n in range(PATTERNS))


def test_a_single_evaluation_is_a_dot_and_nothing_is_nothing() -> None:
    assert plot("Loss", []) == plot("Loss", [Curve("a", []), Curve("b", [(3, 1.0)])]) == ""
    assert "g-dot" in plot("Loss", [Curve("a", [(3, 1.0)], dots=True)])
