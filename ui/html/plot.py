"""Curves and bars as SVG: axes with round numbers, lines told apart by colour and pattern, text that keeps its size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ui.html.tags import Html, div, join, span, tag

WIDTH, HEIGHT = 1000, 100
"""Of the drawing's own coordinates, which are stretched to the room that there is."""
Y_TICKS, X_TICKS = 4, 5
PATTERNS = 6
"""Looks that `style.css` has for lines: colours that the colour-blind tell apart, each dashed in its own way."""
POINT = 0.01
"""Length of the stroke whose round ends are a dot; a circle would be stretched."""
Format = Callable[[float], str]


@dataclass(frozen=True)
class Curve:
    """A named line through (x, y); with `dots`, each point is marked, as where there are few."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


def plot(title: str, lines: Sequence[Curve], last_x: float = 0, write: Format = lambda y: f"{y:,g}") -> Html:
    """Lines over a common x from 0 to `last_x` or the last point; nothing where there is no line to draw."""
    drawn = [line for line in lines if line.points]
    if not any(len(line.points) > 1 or line.dots for line in drawn):
        return Html("")
    ys = [y for line in drawn for _, y in line.points]
    low, high, step = scale(min(ys), max(ys), Y_TICKS)
    end = max(last_x, *(line.points[-1][0] for line in drawn)) or 1

    def at(x: float, y: float) -> tuple[float, float]:
        return WIDTH * x / end, HEIGHT * (high - y) / (high - low)

    levels = [low + step * i for i in range(round((high - low) / step) + 1)]
    paths = [_path(line, number, at) for number, line in enumerate(drawn)]
    rules = [tag("path", d=f"M0 {at(0, y)[1]:.2f}H{WIDTH}", class_="g-rule") for y in levels]
    drawing = tag("svg", *rules, *paths, viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none", role="img",
                  aria_label=title)  # fmt: skip
    beside = [tag("span", write(_clean(y, step)), style=f"top:{at(0, y)[1]:.1f}%") for y in levels]
    return tag(
        "figure", tag("figcaption", tag("b", title), legend(drawn) if len(drawn) > 1 else None),
        div("g-axes", div("g-y", *beside), drawing, div("g-x", *_below(end))), class_="g-plot",
    )  # fmt: skip


def histogram(title: str, edges: Sequence[int], counts: Sequence[int], limit: int, said: str) -> Html:
    """Bars over whole numbers; those from `limit` on look different, and a line with the words `said` marks it."""
    end, (_, high, step) = edges[-1], scale(0, max(*counts, 1), Y_TICKS)
    bars = [_bar(edges[i], edges[i + 1], n, end, high, limit) for i, n in enumerate(counts) if n]
    levels = [step * i for i in range(round(high / step) + 1)]
    rules = [tag("path", d=f"M0 {HEIGHT * (1 - y / high):.2f}H{WIDTH}", class_="g-rule") for y in levels]
    here = 100 * limit / end
    marked = [tag("path", d=f"M{10 * here:.1f} 0V{HEIGHT}", class_="g-limit")] if limit < end else []
    drawing = tag("svg", *rules, *bars, *marked, viewBox=f"0 0 {WIDTH} {HEIGHT}", preserveAspectRatio="none",
                  role="img", aria_label=title)  # fmt: skip
    beside = [tag("span", count(y), style=f"top:{100 * (1 - y / high):.1f}%") for y in levels]
    side = "right" if here > 60 else "left"
    words = tag("span", said, style=f"{side}:{100 - here if side == 'right' else here:.1f}%", class_="g-said")
    return tag(
        "figure", tag("figcaption", tag("b", title)),
        div("g-axes", div("g-y", *beside), div("g-drawn", drawing, words if marked else None),
            div("g-x", *_below(end))), class_="g-plot g-hist",
    )  # fmt: skip


def _bar(left: int, right: int, n: int, end: int, high: float, limit: int) -> Html:
    """One bar, with its numbers for whoever points at it."""
    x, width, height = WIDTH * left / end, WIDTH * (right - left) / end, max(1.0, HEIGHT * n / high)
    return tag("rect", tag("title", f"{left:,}-{right - 1:,}: {n:,}"), x=f"{x + 0.08 * width:.1f}",
               y=f"{HEIGHT - height:.2f}", width=f"{0.84 * width:.1f}", height=f"{height:.2f}",
               class_="g-over" if left >= limit else "g-within")  # fmt: skip


def legend(lines: Sequence[Curve]) -> Html:
    """Which line is whose."""
    entries = []
    for number, line in enumerate(lines):
        sample = tag("path", d=f"M14 5h{POINT}" if line.dots else "M0 5H28", class_=_look(line, number))
        entries.append(span("g-key", tag("svg", sample, viewBox="0 0 28 10", width=28, height=10), line.name))
    return span("g-legend", *entries)


def scale(low: float, high: float, ticks: int) -> tuple[float, float, float]:
    """A round lowest and highest value around both, and a round step between `ticks` or so."""
    if high - low <= abs(high) * 1e-9:
        low, high = (low - abs(low) * 0.5, high + abs(high) * 0.5) if high else (0.0, 1.0)
    rough = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step


def count(n: float) -> str:
    """A number of steps in few characters."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if n >= 10 * size or (n >= size and n % size == 0):
            return f"{n / size:g}{unit}"
    return f"{n:g}"


def _below(end: float) -> list[Html]:
    """Numbers under the x axis, the last one never beyond the drawing."""
    _, _, step = scale(0, end, X_TICKS)
    step = max(1.0, step)
    found = [step * i for i in range(int(end / step + 1e-9) + 1)]
    return [tag("span", count(x), style=f"left:{100 * x / end:.1f}%", class_="g-last" if x > 0.95 * end else None)
            for x in found]  # fmt: skip


def _path(line: Curve, number: int, at: Callable[[float, float], tuple[float, float]]) -> Html:
    found = [at(x, y) for x, y in line.points]
    course = "M" + "L".join(f"{x:.1f} {y:.2f}" for x, y in found)
    if not line.dots:
        return tag("path", d=course, class_=_look(line, number))
    marks = (tag("path", tag("title", f"{line.name} {x:,g}: {y:,.4g}"), d=f"M{a:.1f} {b:.2f}h{POINT}",
                 class_=_look(line, number)) for (x, y), (a, b) in zip(line.points, found, strict=True))  # fmt: skip
    return join([tag("path", d=course, class_=f"g-join g-look{number % PATTERNS}"), *marks])


def _look(line: Curve, number: int) -> str:
    return f"{'g-dot' if line.dots else 'g-stroke'} g-look{number % PATTERNS}"


def _clean(y: float, step: float) -> float:
    """A level without the noise of its making: 0.30000000000000004 is 0.3."""
    return round(y, max(0, 2 - math.floor(math.log10(step))))
