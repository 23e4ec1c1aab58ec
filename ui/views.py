"""What the pages show, made of `ui.render`: models loading, a report on data, a run, a card, versions."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from errors import GraftError
from serving.pool import Status
from store.adapters import Version
from store.prompts import as_text
from tasks import LOWER_IS_BETTER
from training.events import PHASES
from ui.render import Html, bar, curve, div, escape, failure, folded, join, notice, span, table, tag
from ui.strings import Words

if TYPE_CHECKING:
    from training.report import Report
    from training.runs import Run

CELL = 160
"""Characters of a text that a table shows."""
BAD_ROWS = 50
CHANGED_ROWS = 50


def short(text: object, length: int = CELL) -> str:
    """A text cut to what a table has room for."""
    whole = " ".join(str(text).split())
    return whole if len(whole) <= length else whole[: length - 1] + "…"


def models(say: Words, statuses: Sequence[Status]) -> Html:
    """One slim line for each base that is not ready; nothing when all are."""
    lines = []
    for status in statuses:
        name = status.id.rsplit("/", 1)[-1]
        if status.phase == "failed":
            lines.append(notice(tag("strong", say("models.failed", model=name)), " ", status.error, kind="bad"))
        elif status.phase != "ready":
            percent = f" {100 * status.fraction:.0f} %" if status.fraction is not None else ""
            words = say(f"models.{status.phase}", model=name) + percent
            lines.append(div("g-loading", span("", words), bar(status.fraction)))
    return join(lines)


def report(say: Words, found: Report) -> Html:
    """A file of rows: how many are usable, its labels, what to look at, its first rows and its bad ones."""
    figures = [("report.rows", found.rows), ("report.usable", found.usable), ("report.left_out", len(found.bad))]
    figures += [("report.duplicates", found.duplicates)] if found.duplicates else []
    counts = div("g-figures", *(div("", tag("b", f"{n:,}"), span("", say(key))) for key, n in figures))
    warnings = join(notice(text, kind="warn") for text in found.warnings)
    return div("g-report", counts, _labels(say, found), warnings, _sample(say, found), _bad(say, found))


def _labels(say: Words, found: Report) -> Html | None:
    if not found.labels:
        return None
    most = max(found.labels.values())
    lines = [_line(short(name, 40), n / most, n) for name, n in found.labels.items()]
    shown, more = lines[:12], lines[12:]
    rest = folded(say("report.more_labels", n=len(more)), *more) if more else None
    return div("g-labels", tag("h4", say("report.labels")), *shown, rest)


def _line(name: str, share: float, value: object, class_: str = "") -> Html:
    return div("g-line", span("", name), bar(share, class_), span("g-n", value))


def _sample(say: Words, found: Report) -> Html:
    head = list(found.mapping.values())
    rows = [[_cell(row[part]) for part in found.mapping if part in row] for row in found.sample]
    if rows and len(rows[0]) != len(head):  # a chat made of a question and an answer column
        head, rows = [say("report.conversation")], [[_cell(row["messages"])] for row in found.sample]
    return join([tag("h4", say("report.first_rows")), table(head, rows)])


def _cell(value: Any) -> Html:  # noqa: ANN401 - a text, or the messages of a chat
    if isinstance(value, str):
        return escape(short(value))
    turns = (tag("p", span("g-role", turn["role"]), " ", short(as_text(turn["content"]))) for turn in value)
    return div("g-chat", *turns)


def _bad(say: Words, found: Report) -> Html | None:
    if not found.bad:
        return None
    rows = [(bad.number, bad.reason) for bad in found.bad[:BAD_ROWS]]
    title = say("report.bad", n=len(found.bad))
    return folded(title, table((say("report.row"), say("report.reason")), rows))


def run(say: Words, job: Run) -> Html:
    """A run as it is now: where it is, or how it ended."""
    head = div("g-run-head", tag("b", job.config.name), span(f"g-state g-{job.state}", say(f"run.{job.state}")))
    facts = span("g-dim", f"{job.config.plugin} · {job.config.data.rsplit('/', 1)[-1]}")
    body = {"running": _running, "done": _done, "failed": _failed}.get(job.state)
    return div("g-run", head, facts, body(say, job) if body else None)


def _running(say: Words, job: Run) -> Html:
    now = job.progress
    reached = PHASES.index(now.phase) if now.phase in PHASES else 0
    marks = ("g-past" if i < reached else "g-now" if i == reached else "" for i in range(len(PHASES)))
    steps = div("g-phases", *(span(mark, say(f"phase.{phase}")) for mark, phase in zip(marks, PHASES, strict=True)))
    share = now.step / now.steps if now.steps and now.phase == "train" else None
    words = say("run.step", step=now.step, steps=now.steps) if now.steps else say(f"phase.{now.phase}")
    left = say("run.left", time=duration(say, now.left_s)) if now.left_s and now.phase == "train" else None
    line = div("g-ends", span("", words), span("", left) if left else None)
    return join([steps, bar(share), line, curve(now.losses, now.steps, say("run.loss"))])


def _done(say: Words, job: Run) -> Html:
    result = job.result
    promoted = bool(result.get("promoted"))
    text = say("run.promoted" if promoted else "run.waits", version=result.get("version", ""))
    gate = (result.get("card") or {}).get("gate") or {}
    why = tag("p", gate["why"]) if gate.get("why") else None
    said = notice(tag("strong", text), why, kind="good" if promoted else "warn")
    losses = folded(say("run.curve"), curve(job.progress.losses, job.progress.steps, say("run.loss")))
    return join([said, card(say, result.get("card") or {}), losses])


def _failed(say: Words, job: Run) -> Html:
    result = job.result
    error = GraftError(*(str(result.get(part) or "") for part in ("what", "why", "next")))
    log = "\n".join(result.get("log") or ())
    return join([failure(error), folded(say("run.log"), tag("pre", log)) if log else None])


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
        _line(name, value / most, figure(metric, value), "g-new" if i == len(values) - 1 else "")
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


def figure(metric: str, value: float) -> str:
    """A figure as people read it."""
    return f"{value:.2f}" if metric in LOWER_IS_BETTER else f"{100 * value:.1f} %"


def duration(say: Words, seconds: float) -> str:
    """Seconds in words."""
    if seconds < 60:
        return say("time.seconds", n=max(1, round(seconds)))
    if seconds < 3600:
        return say("time.minutes", n=round(seconds / 60))
    return say("time.hours", n=f"{seconds / 3600:.1f}")


def day(created: Any) -> str:  # noqa: ANN401 - Unix seconds or an ISO date
    """A manifest's time to the minute."""
    if isinstance(created, int | float):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
    try:
        return datetime.fromisoformat(str(created)).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""
