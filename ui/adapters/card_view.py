"""Cards: before and after on the same held-out rows, as bars with their intervals, matrices and words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks import LOWER_IS_BETTER
from ui.adapters import card_rows
from ui.html.format import figure, short
from ui.html.tags import Html, bar, div, folded, measured_line, notice, span, table, tag
from ui.i18n import Words
from ui.tab.corrections_view import learned

MOST = 12
"""Labels that a matrix shows; of more, those with the most errors."""
LABEL = 24
"""Characters of a label."""
DEEPEST = 85
"""Percent of the colour where all rows of a label are: words on it must stay readable."""

Matrix = Sequence[Sequence[int]]


def classes(say: Words, facts: Mapping[str, Any]) -> Html | None:
    """The matrices, before and after side by side, and the table of labels; None for cards without labels."""
    found = facts.get("classes")
    if not found:
        return None
    was = "live" if facts.get("live") else "base"
    names = {was: facts.get("live_ref") or say("task.base"), "new": say("card.new")}
    each = _labels(say, found["per_class"][was], found["per_class"]["new"])
    if not found["confusion"]:
        return div("g-classes", each)
    labels, chosen = found["labels"], most_confused(found["confusion"]["new"])
    maps = [_map(say, name, labels, found["confusion"][key], chosen) for key, name in names.items()]
    some = tag("p", say("card.some_labels", n=len(chosen), all=len(labels)), class_="g-dim")
    note = some if len(chosen) < len(labels) else None
    return div("g-classes", tag("h4", say("card.confusion")), div("g-maps", *maps), note, each)


def most_confused(matrix: Matrix) -> list[int]:
    """The places, in their order, of the labels with the most errors, given or received."""
    size = range(len(matrix))
    errors = [sum(matrix[i]) + sum(row[i] for row in matrix) - 2 * matrix[i][i] for i in size]
    return sorted(sorted(size, key=lambda i: -errors[i])[:MOST])


def _map(say: Words, name: str, labels: Sequence[str], matrix: Matrix, chosen: Sequence[int]) -> Html:
    head = tag("tr", tag("th"), *(tag("th", short(labels[i], LABEL), title=labels[i], scope="col") for i in chosen))
    body = [
        tag("tr", tag("th", short(labels[i], LABEL), title=labels[i], scope="row"),
            *(_cell(matrix[i][j], sum(matrix[i]), i == j) for j in chosen))
        for i in chosen
    ]  # fmt: skip
    return div(
        "g-map",
        tag("h5", name, " ", span("g-dim", say("card.axes"))),
        div("g-heat", tag("table", tag("thead", head), tag("tbody", *body))),
    )


def _cell(count: int, of: int, right: bool) -> Html:
    """A count, the deeper the larger its share of the label's rows; green where right, red where not."""
    depth = DEEPEST * count / of if of else 0
    style = f"--depth:{max(depth, 12):.0f}%" if count else None
    return tag("td", count or "·", class_=("g-hit" if right else "g-miss") if count else "g-none", style=style)


def _labels(say: Words, was: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Html:
    earlier = {row["label"]: row for row in was}
    keys = ("card.label", "card.precision", "card.recall", "card.f1", "card.f1_before", "card.support")
    label, precision, recall, f1, f1_before, support = (say(key) for key in keys)
    head = (label, precision, recall, f1, "", f1_before, support)
    rows = [
        [short(row["label"], 40), _percent(row["precision"]), _percent(row["recall"]), _percent(row["f1"]),
         bar(row["f1"], "g-new"), span("g-dim", _percent(earlier[row["label"]]["f1"])), row["support"]]
        for row in sorted(now, key=lambda row: (row["f1"], -row["support"]))
    ]  # fmt: skip
    return folded(say("card.labels", n=len(rows)), table(head, rows, "g-labels"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


METRICS = ("accuracy", "macro_f1", "log_loss", "loss", "perplexity", "rouge_l")
SHARES = ("accuracy", "macro_f1", "rouge_l")
"""Figures from 0 to 1, which people read in percent and compare in points."""
FEW = 200
"""Rows below which the card says how much they can tell at all."""

Facts = Mapping[str, Any]
"""What card.json holds. Cards of earlier days have no certainty, classes, base_by and no_live."""


def figures(say: Words, facts: Facts) -> Html:
    """A card without its rows: the verdict, the figures, and what was taken for what."""
    if not facts:
        return Html("")
    shown = [_metric(say, metric, facts) for metric in METRICS if metric in facts["new"]]
    about = tag("p", " ".join(_about(say, facts)), class_="g-dim")
    matrices, taught = classes(say, facts), learned(say, facts.get("corrections"))
    alone = say("teach.alone") if facts.get("alone") else None
    said = notice(*(tag("p", words) for words in (taught, alone) if words)) if taught else None
    return div("g-card", _verdict(say, facts), said, div("g-metrics", *shown), _counted(say, facts), matrices, about)


def before(facts: Facts) -> str:
    """Which contender the new version is compared with: live, or base where no live version could be."""
    return "live" if facts.get("live") else "base"


def before_name(say: Words, facts: Facts) -> str:
    """What people call it."""
    return str(facts.get("live_ref") or say("task.base"))


def _verdict(say: Words, facts: Facts) -> Html:
    """The difference in words, and what the gate made of it."""
    metric, gate = facts.get("metric") or METRICS[0], facts.get("gate") or {}
    if metric not in facts["new"]:
        metric = next(m for m in METRICS if m in facts["new"])
    change = tag("strong", difference(say, metric, facts))
    certainty = facts.get("certainty")
    sure = say(f"verdict.{_judged(metric, facts)}") if certainty else None
    rule = say(f"gate.{gate['rule']}") if gate.get("rule") else ""
    passed = say("card.passed" if gate.get("pass") else "card.held_back", rule=rule) if rule else None
    kind = "good" if gate.get("pass") else "warn"
    return notice(change, *(tag("p", words) for words in (sure, passed) if words), kind=kind)


def _judged(metric: str, facts: Facts) -> str:
    """better or worse where the difference is more than chance can make, else unsure."""
    if not facts["certainty"]["sure"]:
        return "unsure"
    change = facts["new"][metric] - facts[before(facts)][metric]
    return "better" if (change < 0) is (metric in LOWER_IS_BETTER) else "worse"


def difference(say: Words, metric: str, facts: Facts) -> str:
    """`Accuracy 76.0 % → 92.0 %: +16.0 points (95 %: +4.0 to +28.0)`."""
    was, now = facts[before(facts)][metric], facts["new"][metric]
    words = f"{say(f'metric.{metric}')} {figure(metric, was)} → {figure(metric, now)}"
    interval = ((facts.get("certainty") or {}).get("intervals") or {}).get(metric)
    if not interval:
        return words
    low, high = (_signed(metric, bound) for bound in interval["difference"])
    change = say("card.points", n=_signed(metric, now - was)) if metric in SHARES else _signed(metric, now - was)
    return say("card.difference", words=words, change=change, low=low, high=high)


def _signed(metric: str, value: float) -> str:
    """A difference: points of a share, else the figure's own unit."""
    text = f"{100 * value:+.1f}" if metric in SHARES else f"{value:+,.2f}"
    return text.replace("-", "−")


def _metric(say: Words, metric: str, facts: Facts) -> Html:
    who = [key for key in ("base", "live", "new") if facts.get(key) and metric in facts[key]]
    names = {"base": say("task.base"), "live": facts.get("live_ref") or say("card.live"), "new": say("card.new")}
    intervals = ((facts.get("certainty") or {}).get("intervals") or {}).get(metric) or {}
    most = 1.0 if metric in SHARES else max(intervals.get(key, [0, facts[key][metric]])[1] for key in who) or 1.0
    lines = [_contender(names[key], metric, facts[key][metric], intervals.get(key), most, key) for key in who]
    direction = say("card.lower" if metric in LOWER_IS_BETTER else "card.higher")
    return div("g-metric", tag("h4", say(f"metric.{metric}"), " ", span("g-dim", direction)), *lines)


def _contender(name: str, metric: str, value: float, interval: Sequence[float] | None, most: float, key: str) -> Html:
    bounds = (interval[0] / most, interval[1] / most) if interval else None
    said = f"{figure(metric, interval[0])} – {figure(metric, interval[1])}" if interval else None
    return measured_line(name, value / most, bounds, figure(metric, value), "g-new" if key == "new" else "", said)


def _counted(say: Words, facts: Facts) -> Html | None:
    """How many rows changed, and which way."""
    gained, lost = card_rows.counts(facts)
    if "accuracy" not in facts["new"] and not gained and not lost:
        return None
    keys = ("card.fixed", "card.broken") if "accuracy" in facts["new"] else ("card.better", "card.worse")
    return div("g-changes", span("g-fixed", say(keys[0], n=gained)), span("g-broken", say(keys[1], n=lost)))


def _about(say: Words, facts: Facts) -> Iterator[str]:
    """What the figures are of, and what they cannot tell."""
    rows = int(facts.get("held_out", 0))
    yield say("card.about", n=rows)
    certainty, metric = facts.get("certainty"), str(facts.get("metric"))
    if certainty:
        yield say("card.intervals")
        if rows < FEW:
            least = _signed(metric, certainty["least"]).lstrip("+")
            yield say("card.few", n=rows, least=say("card.points", n=least) if metric in SHARES else least)
    if facts.get("base_by"):
        yield say(f"base_by.{facts['base_by']}")
    missing = facts.get("no_live")
    if missing and missing["why"] != "none":
        yield say(f"no_live.{missing['why']}", version=missing["ref"], detail=missing["detail"])
