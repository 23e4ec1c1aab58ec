"""What the pages show of versions: their cards, before and after, and the list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from store.adapters import Version
from tasks import LOWER_IS_BETTER
from ui.render import Html, div, folded, line, span, table, tag
from ui.strings import Words
from ui.views import day, figure, short

CHANGED_ROWS = 50


def card(say: Words, facts: Mapping[str, Any]) -> Html:
    """Before and after on the same held-out rows: figures as bars, and the rows that changed."""
    if not facts:
        return Html("")
    who = [(key, facts[key]) for key in ("base", "live", "new") if facts.get(key)]
    names = {"base": say("task.base"), "live": facts.get("live_ref") or say("card.live"), "new": say("card.new")}
    metrics = [m for m in ("accuracy", "macro_f1", "loss", "perplexity", "rouge_l") if m in facts["new"]]
    blocks = [_metric(say, metric, [(names[key], figures[metric]) for key, figures in who if metric in figures])
              for metric in metrics]  # fmt: skip
    about = tag("p", say("card.about", n=facts.get("held_out", 0)), class_="g-dim")
    changes = div(
        "g-changes",
        span("g-fixed", say("card.fixed", n=facts.get("fixed", 0))),
        span("g-broken", say("card.broken", n=facts.get("broken", 0))),
    )
    counted = changes if "accuracy" in metrics else None
    return div("g-card", about, div("g-metrics", *blocks), counted, _rows(say, facts))


def _metric(say: Words, metric: str, values: Sequence[tuple[str, float]]) -> Html:
    most = 1.0 if metric in ("accuracy", "macro_f1", "rouge_l") else max(value for _, value in values) or 1.0
    lines = [
        line(name, value / most, figure(metric, value), "g-new" if i == len(values) - 1 else "")
        for i, (name, value) in enumerate(values)
    ]
    direction = say("card.lower" if metric in LOWER_IS_BETTER else "card.higher")
    return div("g-metric", tag("h4", say(f"metric.{metric}"), " ", span("g-dim", direction)), *lines)


def _rows(say: Words, facts: Mapping[str, Any]) -> Html | None:
    rows = sorted(facts.get("rows") or (), key=lambda row: not row["change"])[:CHANGED_ROWS]
    if not rows:
        return None
    live = facts.get("live_ref")
    head = (say("card.text"), say("card.target"), live or say("task.base"), say("card.new"), "")
    marks = {"fixed": span("g-fixed", say("card.is_fixed")), "broken": span("g-broken", say("card.is_broken"))}
    cells = [[short(row["text"]), short(row["target"]), short(row["live" if live else "base"]), short(row["new"]),
              marks.get(row["change"], "")] for row in rows]  # fmt: skip
    return folded(say("card.rows", n=len(rows)), table(head, cells, "g-wide"))


def versions(say: Words, found: Sequence[Version], live: str) -> Html:
    """A tab's versions, newest first, the live one marked."""
    if not found:
        return div("g-empty", say("adapters.none"))
    return div("g-versions", *(_version(say, version, version.ref == live) for version in found))


def _version(say: Words, version: Version, live: bool) -> Html:
    facts = version.manifest
    head = [tag("b", version.ref), span("g-live", say("adapters.live")) if live else None]
    figures = [span("g-figure", f"{say(f'metric.{m}')} {figure(m, v)}") for m, v in headline(version.card)]
    base = facts.get("base") or {}
    name = str(base.get("id", "")).rsplit("/", 1)[-1]
    rows = (facts.get("data") or {}).get("usable")
    about = [name, day(facts.get("created")), say("adapters.rows", n=rows) if rows else ""]
    return div("g-version", div("", *head), div("g-dim", " · ".join(part for part in about if part)), div("", *figures))


def headline(card_facts: Mapping[str, Any]) -> list[tuple[str, float]]:
    """The two figures that say most about a version."""
    new = card_facts.get("new") or {}
    return [(m, new[m]) for m in ("accuracy", "macro_f1", "loss", "rouge_l") if m in new][:2]
