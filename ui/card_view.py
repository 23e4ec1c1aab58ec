"""Cards: before and after on the same held-out rows, as bars with their intervals, matrices and words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks import LOWER_IS_BETTER
from ui import matrix_view, rows_view
from ui.corrections_view import learned
from ui.render import Html, div, measured_line, notice, span, tag
from ui.strings import Words
from ui.views import figure

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
    classes, taught = matrix_view.classes(say, facts), learned(say, facts.get("corrections"))
    alone = say("teach.alone") if facts.get("alone") else None
    said = notice(*(tag("p", words) for words in (taught, alone) if words)) if taught else None
    return div("g-card", _verdict(say, facts), said, div("g-metrics", *shown), _counted(say, facts), classes, about)


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
    gained, lost = rows_view.counts(facts)
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
