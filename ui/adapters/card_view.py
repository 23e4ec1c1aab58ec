"""HTML of a card: the verdict, metrics with their intervals before and after, and the confusion matrices of labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks import LOWER_IS_BETTER
from ui.adapters.card_rows import GAINED, LOST, Card, before
from ui.html.format import figure, short
from ui.html.tags import Html, bar, div, folded, line, notice, span, table, tag
from ui.i18n import Words
from ui.tab.corrections_view import learned

METRICS = ("accuracy", "macro_f1", "log_loss", "loss", "perplexity", "rouge_l")
SHARES = ("accuracy", "macro_f1", "rouge_l")
"""Metrics from 0 to 1, shown in percent and compared in points."""
FEW = 200
"""Rows below which the card says which difference they can show at all."""
MOST = 12
"""Labels that a matrix shows; of more, those with the most errors."""
LABEL = 24
"""Characters of a label."""
DEEPEST = 85
"""Percent of the colour where a cell has all rows of its label: the text on it must stay readable."""

Matrix = Sequence[Sequence[int]]


def summary(say: Words, card: Card) -> Html:
    """Show a card without its rows. Cards of earlier releases have no certainty, classes, base_by and no_live."""
    if not card:
        return Html("")
    shown = [_metric(say, metric, card) for metric in METRICS if metric in card["new"]]
    about = tag("p", " ".join(_about(say, card)), class_="g-dim")
    taught = learned(say, card.get("corrections"))
    alone = tag("p", say("teach.alone")) if card.get("alone") else None
    lesson = notice(tag("p", taught), alone) if taught else None
    metrics = div("g-metrics", *shown)
    return div("g-card", _verdict(say, card), lesson, metrics, _changed(say, card), classes(say, card), about)


def _verdict(say: Words, card: Card) -> Html:
    """Show the difference in words, and the decision of the gate."""
    metric, gate = card.get("metric") or METRICS[0], card.get("gate") or {}
    if metric not in card["new"]:
        metric = next(m for m in METRICS if m in card["new"])
    lines = [say(f"verdict.{_judged(say, metric, card)}")] if card.get("certainty") else []
    if gate.get("rule"):
        lines.append(say("card.passed" if gate.get("pass") else "card.held_back", rule=say(f"gate.{gate['rule']}")))
    kind = "good" if gate.get("pass") else "warn"
    return notice(tag("strong", difference(say, metric, card)), *(tag("p", words) for words in lines), kind=kind)


def _judged(say: Words, metric: str, card: Card) -> str:
    """Return better or worse where the difference is larger than chance, else unsure."""
    if not card["certainty"]["sure"]:
        return "unsure"
    change = card["new"][metric] - card[before(say, card)[0]][metric]
    return "better" if (change < 0) is (metric in LOWER_IS_BETTER) else "worse"


def _intervals(metric: str, card: Card) -> Mapping[str, Sequence[float]]:
    """Return the 95 % intervals of a metric by contender, and that of the difference; empty where none are known."""
    return ((card.get("certainty") or {}).get("intervals") or {}).get(metric) or {}


def difference(say: Words, metric: str, card: Card) -> str:
    """Return `Accuracy 76.0 % → 92.0 %: +16.0 points (95 %: +4.0 to +28.0)`."""
    was, now = card[before(say, card)[0]][metric], card["new"][metric]
    words = f"{say(f'metric.{metric}')} {figure(metric, was)} → {figure(metric, now)}"
    intervals = _intervals(metric, card)
    if not intervals:
        return words
    change, low, high = (_signed(metric, value) for value in (now - was, *intervals["difference"]))
    change = say("card.points", n=change) if metric in SHARES else change
    return say("card.difference", words=words, change=change, low=low, high=high)


def _signed(metric: str, value: float) -> str:
    """Write a difference: in points for a share, else in the metric's own unit."""
    text = f"{100 * value:+.1f}" if metric in SHARES else f"{value:+,.2f}"
    return text.replace("-", "−")


def _metric(say: Words, metric: str, card: Card) -> Html:
    """Show the bars of a metric, one for each contender."""
    names = {"base": say("task.base"), "live": card.get("live_ref") or say("card.live"), "new": say("card.new")}
    values = {key: card[key][metric] for key in names if card.get(key) and metric in card[key]}
    intervals = _intervals(metric, card)
    most = 1.0 if metric in SHARES else max(intervals.get(key, [0, value])[1] for key, value in values.items()) or 1.0
    lines = []
    for key, value in values.items():
        interval = intervals.get(key)
        bounds = (interval[0] / most, interval[1] / most) if interval else None
        words = " – ".join(figure(metric, bound) for bound in interval) if interval else None
        colour = "g-new" if key == "new" else ""
        lines.append(line(names[key], value / most, figure(metric, value), colour, bounds, words))
    direction = say("card.lower" if metric in LOWER_IS_BETTER else "card.higher")
    return div("g-metric", tag("h4", say(f"metric.{metric}"), " ", span("g-dim", direction)), *lines)


def _changed(say: Words, card: Card) -> Html | None:
    """Show the numbers of rows that became better and worse."""
    gained, lost = (sum(int(card.get(change, 0)) for change in kind) for kind in (GAINED, LOST))
    labels = "accuracy" in card["new"]
    if not labels and not gained and not lost:
        return None
    better, worse = ("card.fixed", "card.broken") if labels else ("card.better", "card.worse")
    return div("g-changes", span("g-fixed", say(better, n=gained)), span("g-broken", say(worse, n=lost)))


def _about(say: Words, card: Card) -> Iterator[str]:
    """Yield sentences on the rows that were measured, and the limits of the metrics."""
    rows = int(card.get("held_out", 0))
    yield say("card.about", n=rows)
    certainty, metric = card.get("certainty"), str(card.get("metric"))
    if certainty:
        yield say("card.intervals")
        if rows < FEW:
            least = _signed(metric, certainty["least"]).lstrip("+")
            yield say("card.few", n=rows, least=say("card.points", n=least) if metric in SHARES else least)
    if card.get("base_by"):
        yield say(f"base_by.{card['base_by']}")
    missing = card.get("no_live")
    if missing and missing["why"] != "none":
        yield say(f"no_live.{missing['why']}", version=missing["ref"], detail=missing["detail"])


def classes(say: Words, card: Card) -> Html | None:
    """Show the confusion matrices, before and after, and the table of labels; None for cards without labels."""
    found = card.get("classes")
    if not found:
        return None
    was, name = before(say, card)
    each = _labels(say, found["per_class"][was], found["per_class"]["new"])
    if not found["confusion"]:
        return div("g-classes", each)
    labels, shown = found["labels"], most_confused(found["confusion"]["new"])
    names = {was: name, "new": say("card.new")}
    maps = [_map(say, name, labels, found["confusion"][key], shown) for key, name in names.items()]
    some = tag("p", say("card.some_labels", n=len(shown), all=len(labels)), class_="g-dim")
    note = some if len(shown) < len(labels) else None
    return div("g-classes", tag("h4", say("card.confusion")), div("g-maps", *maps), note, each)


def most_confused(matrix: Matrix) -> list[int]:
    """Return the indices, in order, of the labels with the most errors, given or received."""
    size = range(len(matrix))
    errors = [sum(matrix[i]) + sum(row[i] for row in matrix) - 2 * matrix[i][i] for i in size]
    return sorted(sorted(size, key=lambda i: -errors[i])[:MOST])


def _map(say: Words, name: str, labels: Sequence[str], matrix: Matrix, shown: Sequence[int]) -> Html:
    columns, rows = (
        {i: tag("th", short(labels[i], LABEL), title=labels[i], scope=scope) for i in shown} for scope in ("col", "row")
    )
    body = [tag("tr", rows[i], *(_cell(matrix[i][j], sum(matrix[i]), i == j) for j in shown)) for i in shown]
    head = tag("thead", tag("tr", tag("th"), *columns.values()))
    title = tag("h5", name, " ", span("g-dim", say("card.axes")))
    return div("g-map", title, div("g-heat", tag("table", head, tag("tbody", *body))))


def _cell(count: int, rows: int, right: bool) -> Html:
    """Show a count, the deeper the larger its share of the label's rows; green where right, red where not."""
    if not count:
        return tag("td", "·", class_="g-none")
    depth = max(DEEPEST * count / rows, 12)
    return tag("td", count, class_="g-hit" if right else "g-miss", style=f"--depth:{depth:.0f}%")


def _labels(say: Words, was: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Html:
    earlier = {row["label"]: _percent(row["f1"]) for row in was}
    keys = ("card.label", "card.precision", "card.recall", "card.f1", "", "card.f1_before", "card.support")
    rows = [
        (
            short(row["label"], 40),
            *(_percent(row[key]) for key in ("precision", "recall", "f1")),
            bar(row["f1"], "g-new"),
            span("g-dim", earlier[row["label"]]),
            row["support"],
        )
        for row in sorted(now, key=lambda row: (row["f1"], -row["support"]))
    ]
    return folded(say("card.labels", n=len(rows)), table([key and say(key) for key in keys], rows, "g-labels"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
