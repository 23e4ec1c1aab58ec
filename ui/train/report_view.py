"""HTML of a report on a file of rows: counts, labels, lengths in tokens, rendered rows, and the rows left out."""

from __future__ import annotations

from typing import Any

from models.chat_template import as_text
from training.data.inspect.report import LATER, HeldOut, Rendered, Report, TokenLengths
from ui.html.format import short
from ui.html.plot import histogram
from ui.html.tags import Html, bar, div, escape, folded, join, line, notice, span, table, tag
from ui.i18n import Words

BAD_ROWS = 50
LABELS = 12
"""Labels that are shown unfolded."""
PIECE = 1_200
"""Characters of one piece of a row that are shown."""


def report(say: Words, found: Report) -> Html:
    """Show the known parts of a report."""
    figures = {"report.rows": found.rows, "report.usable": found.usable, "report.left_out": found.left_out}
    figures |= {"report.duplicates": found.duplicates} if found.duplicates else {}
    return div(
        "g-report",
        div("g-figures", *(_figure(say, key, n) for key, n in figures.items())),
        join(notice(text, kind="warn") for text in found.warnings),
        _labels(say, found),
        _tokens(say, found),
        _rendered(say, found.rendered) if found.rendered else _sample(say, found),
        _held_out(say, found.held_out) if found.held_out else None,
        tag("p", say("report.restated", n=found.restated), class_="g-dim") if found.restated else None,
        _left_out(say, found),
    )


def _figure(say: Words, key: str, n: object) -> Html:
    return div("", tag("b", n), span("", say(key)))


def _labels(say: Words, found: Report) -> Html | None:
    if not found.labels:
        return None
    most = max(found.labels.values())
    lines = [
        line(short(name, 40), n / most, f"{n:,} · {100 * n / found.usable:.0f} %") for name, n in found.labels.items()
    ]
    shown, rest = lines[:LABELS], lines[LABELS:]
    more = folded(say("report.more_labels", n=len(rest)), *rest) if rest else None
    return div("g-labels", tag("h4", say("report.labels")), *shown, more)


def _tokens(say: Words, found: Report) -> Html:
    """Show the lengths of rows in tokens of the base, or why they are not known yet."""
    if found.tokens:
        return _lengths(say, found, found.tokens)
    if found.untokenized:
        later = found.untokenized == LATER
        return notice(say("report.later") if later else found.untokenized, kind="info" if later else "bad")
    return div("g-loading", span("", say("report.counting")), bar(None))


def _lengths(say: Words, found: Report, tokens: TokenLengths) -> Html:
    limit, truncated = say("report.limit", n=tokens.limit), tokens.truncated
    drawn = histogram(say("report.lengths"), tokens.edges, tokens.counts, tokens.limit, limit)
    figures: dict[str, object] = {
        "report.median": tokens.median,
        "report.p95": tokens.p95,
        "report.longest": tokens.longest,
    }
    figures |= {} if found.labels else {"report.learned": f"{tokens.learned_mean:,.0f}"}
    shown = div("g-figures g-small-figures", *(_figure(say, key, n) for key, n in figures.items()))
    fits = tag("p", say("report.fits", limit=tokens.limit), class_="g-dim")
    if truncated:
        share = f"{100 * truncated / tokens.rows:.1f}"
        fits = notice(say("report.truncated", n=truncated, share=share, limit=tokens.limit), kind="warn")
    sampled = tag("p", say("report.sampled", n=tokens.rows), class_="g-dim") if tokens.rows < found.usable else None
    return join([drawn, shown, fits, sampled])


def _rendered(say: Words, rows: tuple[Rendered, ...]) -> Html:
    """Show the first rows as the model reads them, with the learned pieces marked."""
    first, rest = _row(say, rows[0]), [_row(say, row) for row in rows[1:]]
    head = tag("h4", say("report.rendered"), " ", tag("mark", say("report.marked")))
    return join([head, first, folded(say("report.more_rows", n=len(rest)), *rest) if rest else None])


def _row(say: Words, row: Rendered) -> Html:
    if not row.pieces:
        return div("g-read", span("g-role", say("report.unlearned")))
    text = (tag("mark", _shortened(piece)) if learned else span("", _shortened(piece)) for piece, learned in row.pieces)
    answer = div("g-learned", span("g-dim", say("report.answer")), " ", tag("mark", row.answer)) if row.answer else None
    return div("g-read", tag("pre", *text), answer, span("g-role", say("report.cut")) if row.cut else None)


def _shortened(piece: str) -> str:
    return piece if len(piece) <= PIECE else f"{piece[: PIECE // 2]} […] {piece[-PIECE // 2 :]}"


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


def _held_out(say: Words, other: HeldOut) -> Html:
    """Show the file of held-out rows, and the rows that are in both files."""
    words = tag("p", say("report.held_out", file=other.file, known=other.known, rows=other.rows))
    unknown = None
    if other.unknown:
        names = ", ".join(f"{short(name, 40)} ({n:,})" for name, n in list(other.unknown.items())[:LABELS])
        unknown = notice(say("report.unknown", n=sum(other.unknown.values()), names=names), kind="warn")
    shared = None
    if other.shared:
        examples = folded(say("report.shared_rows"), *(tag("p", short(text, 300)) for text in other.examples))
        shared = notice(say("report.shared", n=other.shared), examples, kind="warn")
    return join([tag("h4", say("report.held_out_title")), words, unknown, shared])


def _left_out(say: Words, found: Report) -> Html | None:
    if not found.bad:
        return None
    rows = [(bad.number, bad.reason) for bad in found.bad[:BAD_ROWS]]
    title = say("report.bad", n=found.left_out)
    return folded(title, table((say("report.row"), say("report.reason")), rows))
