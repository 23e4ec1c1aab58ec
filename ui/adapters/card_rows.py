"""Rows of a card: as HTML, filtered and searched, and as files for download.

Handlers take the value that names a card, never a path; the page that places `CardRows` says who may see its rows.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import GraftError
from ui.context import Context
from ui.html.format import changes, short
from ui.html.tags import Html, div, join, span, table, tag
from ui.i18n import Words, t, words
from ui.pulse import QUIET, PagePoll
from ui.train import page_files
from ui.web.access import Action
from ui.web.gradio_private import cache_file

SHOWN = 50
"""Rows shown at a time; the search finds the others."""
GAINED, LOST = ("fixed", "better"), ("broken", "worse")
KINDS: Mapping[str, Sequence[str]] = {"all": (), "gained": GAINED, "lost": LOST}
SEARCHED = ("text", "target", "base", "live", "new")
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""Characters that begin a formula in a spreadsheet."""
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")
LONGEST_TEXT = 400
"""Characters of a text that are shown unfolded."""

Row = Mapping[str, Any]
Card = Mapping[str, Any]
"""Content of card.json; empty where there is none."""


def before(say: Words, card: Card) -> tuple[str, str]:
    """Return the key and the name of the contender that the new version is compared with: live, or else the base."""
    return ("live", str(card["live_ref"])) if card.get("live_ref") else ("base", say("task.base"))


def select(rows: Iterable[Row], kind: str | None, search: str | None) -> list[Row]:
    """Return the rows of a kind (all, gained, lost; None for all) with the searched text in any of their parts."""
    wanted, text = KINDS.get(kind or "all", ()), (search or "").strip().casefold()
    return [
        row
        for row in rows
        if (not wanted or row["change"] in wanted)
        and (not text or any(text in str(row.get(part, "")).casefold() for part in SEARCHED))
    ]


def rows_table(say: Words, card: Card, rows: Sequence[Row]) -> Html:
    """Show rows side by side: in a table where answers are labels, in a block each where they are texts."""
    if not rows:
        return div("g-empty", say("rows.none"))
    some, more = rows[:SHOWN], len(rows) - SHOWN
    body = _table(say, card, some) if "accuracy" in card["new"] else join(_block(say, card, row) for row in some)
    return join([body, tag("p", say("rows.more", n=more), class_="g-dim") if more > 0 else None])


def _table(say: Words, card: Card, rows: Sequence[Row]) -> Html:
    was, name = before(say, card)
    head = (say("card.text"), say("card.target"), name, say("card.new"), "")
    cells = [
        (_text(row["text"]), short(row["target"]), _answer(row, was), _answer(row, "new"), _mark(say, row))
        for row in rows
    ]
    return table(head, cells, "g-wide")


def _answer(row: Row, key: str) -> Html:
    return span("g-right" if row[key] == row["target"] else "g-wrong", short(row[key]))


def _mark(say: Words, row: Row) -> Html:
    change = row["change"]
    colour = "g-fixed" if change in GAINED else "g-broken"
    return span(colour, say(f"change.{change}")) if change in (*GAINED, *LOST) else Html("")


def _text(text: str) -> Html:
    """Show a text; the end of a long one is folded."""
    whole = str(text)
    if len(whole) <= LONGEST_TEXT:
        return span("g-source", whole)
    return tag("details", tag("summary", short(whole, LONGEST_TEXT)), span("g-source", whole), class_="g-long")


def _block(say: Words, card: Card, row: Row) -> Html:
    """Show a row of text: the question and its target, and the two answers with their differences marked."""
    was, name = before(say, card)
    gone, come = differences(row[was], row["new"])
    answers = div("g-pair", _part(name, gone), _part(say("card.new"), come)) if row["new"] or row[was] else None
    texts = div("g-pair", _part(say("card.text"), _text(row["text"])), _part(say("card.target"), _text(row["target"])))
    loss = row.get("loss") or {}
    losses = f"{say('metric.loss')} {loss[was]:.2f} → {loss['new']:.2f}" if was in loss else ""
    return div("g-row", div("g-row-head", _mark(say, row), span("g-dim", losses)), texts, answers)


def _part(title: str, content: Html) -> Html:
    return div("", div("g-role", title), content)


def differences(was: str, now: str) -> tuple[Html, Html]:
    """Return two texts, with `<del>` around what only the first has and `<ins>` around what only the second has."""
    gone, come = list[str](), list[str]()
    for same, old, new in changes(was, now):
        gone.append(old if same or not old.strip() else tag("del", old))
        come.append(new if same or not new.strip() else tag("ins", new))
    return span("g-source", *gone), span("g-source", *come)


def as_jsonl(rows: Iterable[Row]) -> bytes:
    """Return one JSON object a row, in UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(rows: Iterable[Row]) -> bytes:
    """Return a table that spreadsheets open as text, in UTF-8 with the byte-order mark that Excel needs."""
    flat = [dict(row) for row in rows]
    for row in flat:
        row.update({f"loss_{key}": value for key, value in (row.pop("loss", None) or {}).items()})
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows({key: harmless(value) for key, value in row.items()} for row in flat)
    return out.getvalue().encode("utf-8-sig")


def harmless(value: object) -> object:
    """Put an apostrophe before a text that a spreadsheet could take for a formula; return other values as they are."""
    if not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.lstrip(" \u00a0").startswith(FORMULA) else value


WRITERS: Mapping[str, Callable[[Sequence[Row]], bytes]] = {"jsonl": as_jsonl, "csv": as_csv}


class CardRows:
    """The components, placed where it is constructed: a filter, a search, the rows, and a button for each format."""

    def __init__(
        self,
        context: Context,
        poll: PagePoll,
        chosen: Component,
        find: Callable[[Any], tuple[str, Card]],
        action: Action,
    ) -> None:
        """Place the components.

        `find` returns the name and the content of the card that the value of `chosen` means, or raises `GraftError`;
        its rows are shown to those who may do `action`.
        """
        self._find = find
        self.signal = poll.signal()
        """Shows the rows anew when its value changes."""
        plain: dict[str, Any] = {"show_label": False, "container": False, "scale": 3}
        with gr.Column(visible=False, elem_classes="g-card-rows") as box:
            with gr.Row(elem_classes="g-filter"):
                kind = gr.Radio(_kinds(Words(), {}), value="all", **plain)
                search = gr.Textbox(placeholder=t("rows.search"), max_lines=1, elem_classes="g-search", **plain)
                files = {format: gr.Button(format.upper(), size="sm", min_width=72, scale=0) for format in WRITERS}
            html = gr.HTML("", elem_classes="g-list g-rows")
        values = [chosen, kind, search]
        for format, button in files.items():
            page_files.download(button, context.allow(action, self._file(format)), values)
        # One event for every cause, so that an answer on its way never replaces the answer to a later search.
        # A pasted text is a change, but no input to Gradio.
        causes = [self.signal.change, kind.input, search.change]
        outputs = [box, kind, html]
        gr.on(causes, context.allow(action, self._show), values, outputs, trigger_mode="always_last", **QUIET)

    def _show(self, request: gr.Request, chosen: object, kind: str | None, search: str | None) -> list[Any]:
        """Return updates that show the rows of a card; nothing is shown for one without rows."""
        say = words(request)
        card: Card = {}
        with suppress(GraftError):
            _, card = self._find(chosen)
        rows = card.get("rows")
        html = rows_table(say, card, select(rows, kind, search)) if rows else ""
        return [gr.update(visible=bool(rows)), gr.update(choices=_kinds(say, card)), html]

    def _file(self, format: str) -> Callable[[object, str | None, str | None], str]:
        """Return the handler that writes the filtered rows into a file of Gradio's own cache."""

        def write(chosen: object, kind: str | None, search: str | None) -> str:
            id, card = self._find(chosen)
            name = re.sub(r"[^\w.@-]", "_", id or "rows")[:80]
            return cache_file(WRITERS[format](select(card.get("rows") or [], kind, search)), f"{name}.{format}")

        return write


def _kinds(say: Words, card: Card) -> list[tuple[str, str]]:
    """Return the choices of the filter, with the number of rows that each would show."""
    rows, labels = card.get("rows") or [], "accuracy" in (card.get("new") or {})
    texts = ("rows.all", "rows.fixed", "rows.broken") if labels else ("rows.all", "rows.better", "rows.worse")
    return [(say(key, n=len(select(rows, kind, ""))), kind) for kind, key in zip(KINDS, texts, strict=True)]
