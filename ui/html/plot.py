"""Curves and histograms as SVG: axes with round numbers, curves told apart by colour and pattern, fixed text size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ui.html.tags import Html, div, join, span, tag

WIDTH, HEIGHT = 1000, 100
"""Size of the drawing's coordinate system, which is stretched to the space that there is."""
Y_TICKS, X_TICKS = 4, 5
PATTERNS = 6
"""Styles of curves in `style.css`: colours that the colour-blind tell apart, each dashed in its own way."""
POINT = 0.01
"""Length of the stroke whose round ends are a dot; a circle would be stretched."""
Format = Callable[[float], str]


@dataclass(frozen=True)
class Curve:
    """A named line through (x, y); with `dots`, each point is marked, for curves of few points."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = False


def plot(title: str, lines: Sequence[Curve], last_x: float = 0, write: Format = lambda y: f"{y:,g}") -> Html:
    """Draw curves over a common x from 0 to `last_x` or the last point; empty where no curve has two points or dots."""
    drawn = [line for line in lines if line.points]
    if not any(len(line.points) > 1 or line.dots for line in drawn):
        return Html("")
    ys = [y for line in drawn for _, y in line.points]
    low, high, step = scale(min(ys), max(ys), Y_TICKS)
    end = max(last_x, *(line.points[-1][0] for line in drawn)) or 1

    def at(x: float, y: float) -> tuple[float, float]:
        return WIDTH * x / end, HEIGHT * (high - y) / (high - low)

    paths = [_path(line, number, at) for number, line in enumerate(drawn)]
    key = legend(drawn) if len(drawn) > 1 else None
    return _figure(title, key, _levels(low, high, step, write), paths, end, "g-plot")


def histogram(title: str, edges: Sequence[int], counts: Sequence[int], limit: int, note: str) -> Html:
    """Draw `counts` between whole numbers `edges`; bars from `limit` on look different, and `note` marks the limit."""
    end, (_, high, step) = edges[-1], scale(0, max(*counts, 1), Y_TICKS)
    bars = [_bar(edges[i], edges[i + 1], n, end, high, limit) for i, n in enumerate(counts) if n]
    sides = _levels(0, high, step, count)
    if limit >= end:
        return _figure(title, None, sides, bars, end, "g-plot g-hist")
    here = 100 * limit / end
    mark = tag("path", d=f"M{10 * here:.1f} 0V{HEIGHT}", class_="g-limit")
    place = f"right:{100 - here:.1f}%" if here > 60 else f"left:{here:.1f}%"
    label = tag("span", note, style=place, class_="g-said")
    return _figure(title, None, sides, [*bars, mark], end, "g-plot g-hist", label)


def _figure(
    title: str,
    key: Html | None,
    sides: Sequence[tuple[str, float]],
    shapes: Sequence[Html],
    end: float,
    class_: str,
    label: Html | None = None,
) -> Html:
    """Put shapes over horizontal rules between two axes; `sides` are the y axis's texts and their tops in percent."""
    rules = [tag("path", d=f"M0 {HEIGHT * top / 100:.2f}H{WIDTH}", class_="g-rule") for _, top in sides]
    box = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "preserveAspectRatio": "none", "role": "img", "aria_label": title}
    drawing = tag("svg", *rules, *shapes, **box)
    beside = div("g-y", *(tag("span", text, style=f"top:{top:.1f}%") for text, top in sides))
    axes = div("g-axes", beside, div("g-drawn", drawing, label), div("g-x", *_below(end)))
    return tag("figure", tag("figcaption", tag("b", title), key), axes, class_=class_)


def _bar(left: int, right: int, n: int, end: int, high: float, limit: int) -> Html:
    x, width, height = WIDTH * left / end, WIDTH * (right - left) / end, max(1.0, HEIGHT * n / high)
    place = {"x": f"{x + 0.08 * width:.1f}", "y": f"{HEIGHT - height:.2f}"}
    size = {"width": f"{0.84 * width:.1f}", "height": f"{height:.2f}"}
    look = "g-over" if left >= limit else "g-within"
    return tag("rect", tag("title", f"{left:,}-{right - 1:,}: {n:,}"), **place, **size, class_=look)


def legend(lines: Sequence[Curve]) -> Html:
    """List the curves' names beside a sample of each."""
    entries = []
    for number, line in enumerate(lines):
        sample = tag("path", d=f"M14 5h{POINT}" if line.dots else "M0 5H28", class_=_look(line, number))
        entries.append(span("g-key", tag("svg", sample, viewBox="0 0 28 10", width=28, height=10), line.name))
    return span("g-legend", *entries)


def scale(low: float, high: float, ticks: int) -> tuple[float, float, float]:
    """Return round bounds around `low` and `high`, and a round step that makes about `ticks` levels."""
    if high - low <= abs(high) * 1e-9:
        low, high = (low - abs(low) * 0.5, high + abs(high) * 0.5) if high else (0.0, 1.0)
    rough = (high - low) / ticks
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * 0.999)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step


def count(n: float) -> str:
    """Write a number in few characters: 12k, 1.5M."""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if n >= 10 * size or (n >= size and n % size == 0):
            return f"{n / size:g}{unit}"
    return f"{n:g}"


def _levels(low: float, high: float, step: float, write: Format) -> list[tuple[str, float]]:
    """Return the numbers beside the y axis and their tops in percent; rounding makes 0.30000000000000004 a 0.3."""
    digits, n = max(0, 2 - math.floor(math.log10(step))), round((high - low) / step) + 1
    return [(write(round(low + step * i, digits)), 100 - 100 * step * i / (high - low)) for i in range(n)]


def _below(end: float) -> list[Html]:
    """Return the numbers under the x axis; the last one is aligned so that it stays in the drawing."""
    _, _, step = scale(0, end, X_TICKS)
    step = max(1.0, step)
    levels = [step * i for i in range(int(end / step + 1e-9) + 1)]
    lefts = [(count(x), f"left:{100 * x / end:.1f}%", "g-last" if x > 0.95 * end else None) for x in levels]
    return [tag("span", text, style=left, class_=class_) for text, left, class_ in lefts]


def _path(line: Curve, number: int, at: Callable[[float, float], tuple[float, float]]) -> Html:
    places, look = [at(x, y) for x, y in line.points], _look(line, number)
    course = "M" + "L".join(f"{x:.1f} {y:.2f}" for x, y in places)
    if not line.dots:
        return tag("path", d=course, class_=look)
    titles = (tag("title", f"{line.name} {x:,g}: {y:,.4g}") for x, y in line.points)
    marks = (
        tag("path", title, d=f"M{x:.1f} {y:.2f}h{POINT}", class_=look)
        for title, (x, y) in zip(titles, places, strict=True)
    )
    return join([tag("path", d=course, class_=f"g-join g-look{number % PATTERNS}"), *marks])


def _look(line: Curve, number: int) -> str:
    return f"{'g-dot' if line.dots else 'g-stroke'} g-look{number % PATTERNS}"
