"""HTML of the versions of a tab: their list, and the history of which one answered."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from store.adapters import BASE, Version
from ui.html.format import day, figure
from ui.html.tags import Html, div, folded, span, tag
from ui.i18n import Words

RECENT = 5
"""Entries of the history that are shown at once; the older ones unfold."""
CHOOSE = """element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-version]');
  if (row) trigger('select', {version: row.dataset.version});
});"""
"""Runs in the browser: reports which version was clicked."""
GATE = "gate of run "
"""Prefix of the user in entries of the history that the gate of a run made."""
GATE_WHY = re.compile(
    r"(accuracy|macro_f1|log_loss|loss|perplexity|rouge_l) ([\d.]+) \((.+)\) -> ([\d.]+);"
    r" gate: (always|better|not-worse)"
)
"""Reasons that gates write."""
SHIPPED = "ships with Graft"
"""Reason of the versions that come with Graft."""


def versions(say: Words, found: Sequence[Version], live: str) -> Html:
    """Show the versions of a tab, newest first, the live one marked."""
    if not found:
        return div("g-empty", say("adapters.none"))
    return div("g-versions", *(_version(say, version, version.ref == live) for version in found))


def _version(say: Words, version: Version, live: bool) -> Html:
    facts = version.manifest
    head = [
        tag("button", version.ref, type="button", class_="g-pick"),
        span("g-live", say("adapters.live")) if live else None,
    ]
    figures = [span("g-figure", f"{say(f'metric.{m}')} {figure(m, v)}") for m, v in headline(version.card)]
    base = facts.get("base") or {}
    name = str(base.get("id", "")).rsplit("/", 1)[-1]
    rows = (facts.get("data") or {}).get("usable")
    elsewhere = say("adapters.elsewhere") if facts.get("made_elsewhere") else ""
    about = [name, day(facts.get("created")), say("adapters.rows", n=rows) if rows else "", elsewhere]
    cells = (div("", *head), div("g-dim", " · ".join(part for part in about if part)), div("", *figures))
    return tag("div", *cells, class_="g-version", data_version=version.ref)


def headline(card_facts: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Return the two most telling metrics of a card with their values."""
    new = card_facts.get("new") or {}
    return [(m, new[m]) for m in ("accuracy", "macro_f1", "loss", "rouge_l") if m in new][:2]


def timeline(say: Words, history: Sequence[Mapping[str, Any]]) -> Html:
    """Show every change of the version that answers, and every deletion, newest first: what, when, who, why."""
    if not history:
        return Html("")
    now = next((entry for entry in reversed(history) if not entry.get("deleted")), None)
    entries = [_entry(say, entry, entry is now) for entry in reversed(history)]
    recent, older = entries[:RECENT], entries[RECENT:]
    more = folded(say("history.older", n=len(older)), tag("ol", *older, class_="g-timeline")) if older else None
    return div("g-history", tag("h4", say("history.title")), tag("ol", *recent, class_="g-timeline"), more)


def _entry(say: Words, entry: Mapping[str, Any], now: bool) -> Html:
    version = say("task.base") if entry["version"] == BASE else entry["version"]
    kind = "deleted" if entry.get("deleted") else "back" if entry.get("back") else "promoted"
    what = say(f"history.{kind}", version=version)
    at = day(entry["at"]) if entry.get("at") else ""
    facts = " · ".join(part for part in (at, _who(say, str(entry.get("who") or ""))) if part)
    why = tag("p", _why(say, str(entry["why"])), class_="g-why") if entry.get("why") else None
    return tag("li", tag("b", what), " ", span("g-dim", facts), why, class_="g-now" if now else None)


def _why(say: Words, why: str) -> str:
    """Return a reason: in the reader's language where a gate gave it or it came with Graft."""
    if why == SHIPPED:
        return say("history.shipped")
    found = GATE_WHY.fullmatch(why)
    if not found:
        return why
    metric, was, name, now, rule = found.groups()
    was, now = (figure(metric, float(value)) for value in (was, now))
    name = say("task.base") if name == BASE else name
    return say("history.by_gate", metric=say(f"metric.{metric}"), was=was, name=name, now=now, rule=say(f"gate.{rule}"))


def _who(say: Words, who: str) -> str:
    if who.startswith(GATE):
        return say("history.gate", run=who.removeprefix(GATE))
    return say("history.page") if who == "page" else who
