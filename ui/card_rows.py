"""The rows of one card on a page: filter, search, and files to take away.

    rows = CardRows(context, chosen, lambda ref: context.adapters.get(ref).card, Action.KEEP)
    ... `rows.shown` among the outputs and `rows.taken` among the inputs of what shows the card, and in its handler
    updates += rows.updates(say, ref, kind, search)

Handlers take the id of a card, never a path; whoever places it says who may see its rows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.processing_utils import save_bytes_to_cache

from errors import GraftError
from ui import rows_view
from ui.access import Action
from ui.context import Context
from ui.pulse import ASKED, QUIET
from ui.rows_view import WRITERS
from ui.strings import Words, t, words

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
            made = button.click(self._context.allow(self._action, self._file(kind, taken)), given, taken, **ASKED)
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
        found = rows_view.select(rows, kind, search)
        return [gr.update(visible=True), gr.update(choices=_kinds(say, card)), rows_view.rows(say, card, found)]

    def _card(self, id: str | None) -> Mapping[str, Any]:
        return self._find(id or "")

    def _filtered(self, request: gr.Request, id: str | None, kind: str | None, search: str | None) -> str:
        card = self._card(id)
        return rows_view.rows(words(request), card, rows_view.select(card["rows"], kind, search))

    def _file(self, format: str, component: gr.File) -> Callable[[str | None, str | None, str | None], str]:
        """The rows that the filter leaves, in a file of Gradio's own cache, which it serves and sweeps."""

        def write(id: str | None, kind: str | None, search: str | None) -> str:
            found = rows_view.select(self._card(id)["rows"], kind, search)
            name = re.sub(r"[^\w.@-]", "_", id or "rows")[:80]
            path: str = save_bytes_to_cache(WRITERS[format](found), f"{name}.{format}", component.GRADIO_CACHE)
            return path

        return write


def _kinds(say: Words, card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The filter's choices, with how many rows of the card each would show."""
    rows = card.get("rows") or []
    labels = "accuracy" in (card.get("new") or {})
    keys = {"all": "rows.all", "gained": "rows.fixed" if labels else "rows.better",
            "lost": "rows.broken" if labels else "rows.worse"}  # fmt: skip
    return [(say(key, n=len(rows_view.select(rows, kind, ""))), kind) for kind, key in keys.items()]
