"""What the Train page shows of a file of rows: how many can be used, their labels, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from store.prompts import as_text
from ui.render import Html, div, escape, folded, join, line, notice, span, table, tag
from ui.strings import Words
from ui.views import short

if TYPE_CHECKING:
    from training.report import Report

BAD_ROWS = 50


def report(say: Words, found: Report) -> Html:
    """A file of rows: how many are usable, its labels, what to look at, its first rows and its bad ones."""
    figures = [("report.rows", found.rows), ("report.usable", found.usable), ("report.left_out", found.left_out)]
    figures += [("report.duplicates", found.duplicates)] if found.duplicates else []
    counts = div("g-figures", *(div("", tag("b", f"{n:,}"), span("", say(key))) for key, n in figures))
    warnings = join(notice(text, kind="warn") for text in found.warnings)
    return div("g-report", counts, _labels(say, found), warnings, _sample(say, found), _bad(say, found))


def _labels(say: Words, found: Report) -> Html | None:
    if not found.labels:
        return None
    most = max(found.labels.values())
    lines = [line(short(name, 40), n / most, n) for name, n in found.labels.items()]
    shown, more = lines[:12], lines[12:]
    rest = folded(say("report.more_labels", n=len(more)), *more) if more else None
    return div("g-labels", tag("h4", say("report.labels")), *shown, rest)


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
    title = say("report.bad", n=found.left_out)
    return folded(title, table((say("report.row"), say("report.reason")), rows))
