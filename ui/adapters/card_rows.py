"""The rows of one card on a page: filter, search, and files to take away.

    rows = CardRows(context, chosen, lambda ref: context.adapters.get(ref).card, Action.KEEP)
    ... `rows.shown` among the outputs and `rows.taken` among the inputs of what shows the card, and in its handler
    updates += rows.updates(say, ref, kind, search)

Handlers take the id of a card, never a path; whoever places it says who may see its rows.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import GraftError
from ui.context import Context
from ui.html.format import changes, short
from ui.html.tags import Html, div, join, span, table, tag
from ui.i18n import Words, t, words
from ui.pulse import ASKED, QUIET
from ui.web.access import Action
from ui.web.gradio_private import cache_file

SHOWN = 50
"""Rows shown at a time; the search finds the others."""
GAINED, LOST = ("fixed", "better"), ("broken", "worse")
KINDS: Mapping[str, Sequence[str]] = {"all": (), "gained": GAINED, "lost": LOST}
FORMULA = tuple("=+-@\t\r\n＝＋－＠")
"""What a spreadsheet may take for the beginning of a formula."""
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)*")
LONGEST_TEXT = 400

Row = Mapping[str, Any]


def counts(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Rows of the whole card that became better, and worse."""
    gained, lost = (sum(int(facts.get(change, 0)) for change in changes) for changes in (GAINED, LOST))
    return gained, lost


def select(rows: Iterable[Row], kind: str | None, search: str | None) -> list[Row]:
    """The rows of a kind (all, gained, lost) that hold the searched text in any of their parts.

    None, for a filter that the page has not shown yet, is all of them.
    """
    wanted, text = KINDS.get(kind or "all", ()), (search or "").strip().casefold()
    parts = ("text", "target", "base", "live", "new")
    return [
        row
        for row in rows
        if (not wanted or row["change"] in wanted)
        and (not text or any(text in str(row.get(part, "")).casefold() for part in parts))
    ]


def rows_table(say: Words, facts: Mapping[str, Any], found: Sequence[Row]) -> Html:
    """Rows side by side: a table where answers are labels, a block each where they are texts."""
    if not found:
        return div("g-empty", say("rows.none"))
    some = found[:SHOWN]
    labels = "accuracy" in facts["new"]
    body = _table(say, facts, some) if labels else join(_block(say, facts, row) for row in some)
    more = len(found) - len(some)
    return join([body, tag("p", say("rows.more", n=more), class_="g-dim") if more else None])


def _before(facts: Mapping[str, Any]) -> str:
    return "live" if facts.get("live_ref") else "base"


def _table(say: Words, facts: Mapping[str, Any], found: Sequence[Row]) -> Html:
    was = _before(facts)
    head = (say("card.text"), say("card.target"), facts.get("live_ref") or say("task.base"), say("card.new"), "")
    cells = [[_text(row["text"]), short(row["target"]), _answer(row, was), _answer(row, "new"), _mark(say, row)]
             for row in found]  # fmt: skip
    return table(head, cells, "g-wide")


def _answer(row: Row, key: str) -> Html:
    return span("g-right" if row[key] == row["target"] else "g-wrong", short(row[key]))


def _mark(say: Words, row: Row) -> Html:
    known = (*GAINED, *LOST)
    colour = "g-fixed" if row["change"] in GAINED else "g-broken"
    return span(colour, say(f"change.{row['change']}")) if row["change"] in known else Html("")


def _text(text: str) -> Html:
    """A text, its end to unfold where it is long."""
    whole = str(text)
    if len(whole) <= LONGEST_TEXT:
        return span("g-source", whole)
    return tag("details", tag("summary", short(whole, LONGEST_TEXT)), span("g-source", whole), class_="g-long")


def _block(say: Words, facts: Mapping[str, Any], row: Row) -> Html:
    """A row of text: what was asked and expected, and the two answers with what differs between them."""
    was = _before(facts)
    gone, come = differences(row[was], row["new"])
    return div(
        "g-row",
        div("g-row-head", _mark(say, row), span("g-dim", _losses(say, row, was))),
        div("g-pair", _part(say("card.text"), _text(row["text"])), _part(say("card.target"), _text(row["target"]))),
        div("g-pair", _part(facts.get("live_ref") or say("task.base"), gone), _part(say("card.new"), come))
        if row["new"] or row[was]
        else None,
    )


def _part(title: str, content: Html) -> Html:
    return div("", div("g-role", title), content)


def _losses(say: Words, row: Row, was: str) -> str:
    loss = row.get("loss") or {}
    return f"{say('metric.loss')} {loss[was]:.2f} → {loss['new']:.2f}" if was in loss else ""


def differences(was: str, now: str) -> tuple[Html, Html]:
    """Two texts, what only the one has and what only the other has marked."""
    gone, come = list[Html](), list[Html]()
    for same, old, new in changes(was, now):
        gone.append(_piece(old, "" if same else "del"))
        come.append(_piece(new, "" if same else "ins"))
    return span("g-source", *gone), span("g-source", *come)


def _piece(text: str, mark: str) -> Html:
    return tag(mark, text) if mark and text.strip() else join([text])


def as_jsonl(found: Iterable[Row]) -> bytes:
    """One JSON object a row, UTF-8."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode()


def as_csv(found: Sequence[Row]) -> bytes:
    """A table that spreadsheets open as text, whatever the rows hold; UTF-8 with the mark that Excel wants."""
    flat = [{**{k: v for k, v in row.items() if k != "loss"},
             **{f"loss_{k}": v for k, v in (row.get("loss") or {}).items()}} for row in found]  # fmt: skip
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(key for row in flat for key in row)))
    writer.writeheader()
    writer.writerows({key: harmless(value) for key, value in row.items()} for row in flat)
    return out.getvalue().encode("utf-8-sig")


def harmless(value: object) -> object:
    """A cell that no spreadsheet computes: a text that could begin a formula gets an apostrophe; numbers stay."""
    if not isinstance(value, str) or NUMBER.fullmatch(value):
        return value
    return f"'{value}" if value.lstrip(" \u00a0").startswith(FORMULA) else value


WRITERS: Mapping[str, Callable[[Sequence[Row]], bytes]] = {"jsonl": as_jsonl, "csv": as_csv}


Find = Callable[[str], Mapping[str, Any]]
"""A card by its id; raises `GraftError`."""

DOWNLOAD = """(file) => {
  if (!file) return;
  const link = Object.assign(document.createElement('a'), {href: file.url, download: file.orig_name});
  document.body.append(link);
  link.click();
  link.remove();
}"""
"""A file made on a click is taken in the same click, which Gradio's own button needs two for."""


class CardRows:
    """Its components, placed where it is constructed."""

    def __init__(self, context: Context, chosen: Component, find: Find, action: Action) -> None:
        """`chosen` holds the id of the card that is shown; `action` is what who sees its rows must be allowed to do."""
        self._context, self._find, self._action = context, find, action
        with gr.Column(visible=False, elem_classes="g-card-rows") as box:
            with gr.Row(elem_classes="g-filter"):
                self._kind = gr.Radio(_kinds(Words(), {}), value="all", show_label=False, container=False, scale=3)
                self._search = gr.Textbox(placeholder=t("rows.search"), show_label=False, container=False, scale=3,
                                          max_lines=1, elem_classes="g-search")  # fmt: skip
                files = [(kind, gr.Button(kind.upper(), size="sm", min_width=72, scale=0)) for kind in WRITERS]
            html = gr.HTML("", elem_classes="g-list g-rows")
            taken = gr.File(visible="hidden", show_label=False, elem_classes="g-unseen")
        self.taken: list[Component] = [self._kind, self._search]
        """What `updates` receives behind the words and the id."""
        self.shown: list[Any] = [box, self._kind, html]
        """What it updates."""
        given = [chosen, *self.taken]
        # A text that is pasted is a change, and to Gradio no input.
        for change in (self._kind.input, self._search.change):
            change(self._context.allow(self._action, self._filtered), given, html, trigger_mode="always_last", **QUIET)
        for kind, button in files:
            made = button.click(self._context.allow(self._action, self._file(kind)), given, taken, **ASKED)
            made.success(None, taken, None, js=DOWNLOAD, api_visibility="private")

    def updates(self, say: Words, id: str | None, kind: str | None, search: str | None) -> list[Any]:
        """The updates of `shown` for a card; nothing is shown for one without rows."""
        try:
            card = self._card(id)
        except GraftError:
            card = {}
        rows = card.get("rows") or []
        if not rows:
            return [gr.update(visible=False), gr.skip(), ""]
        found = select(rows, kind, search)
        return [gr.update(visible=True), gr.update(choices=_kinds(say, card)), rows_table(say, card, found)]

    def _card(self, id: str | None) -> Mapping[str, Any]:
        return self._find(id or "")

    def _filtered(self, request: gr.Request, id: str | None, kind: str | None, search: str | None) -> str:
        card = self._card(id)
        return rows_table(words(request), card, select(card["rows"], kind, search))

    def _file(self, format: str) -> Callable[[str | None, str | None, str | None], str]:
        """The rows that the filter leaves, in a file of Gradio's own cache, which it serves and sweeps."""

        def write(id: str | None, kind: str | None, search: str | None) -> str:
            found = select(self._card(id)["rows"], kind, search)
            name = re.sub(r"[^\w.@-]", "_", id or "rows")[:80]
            return cache_file(WRITERS[format](found), f"{name}.{format}")

        return write


def _kinds(say: Words, card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The filter's choices, with how many rows of the card each would show."""
    rows = card.get("rows") or []
    labels = "accuracy" in (card.get("new") or {})
    keys = {"all": "rows.all", "gained": "rows.fixed" if labels else "rows.better",
            "lost": "rows.broken" if labels else "rows.worse"}  # fmt: skip
    return [(say(key, n=len(select(rows, kind, ""))), kind) for kind, key in keys.items()]
