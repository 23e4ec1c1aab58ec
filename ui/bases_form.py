"""Train: which base to teach on, with a few that suit the tab, the reader's language and this machine, and why."""

from __future__ import annotations

from typing import Any

import gradio as gr

from training import advice, room
from ui.context import Context
from ui.render import Html, folded, table, tag
from ui.strings import Words, t, words


def place_base() -> tuple[gr.Dropdown, gr.HTML]:
    """The field, which takes any id or folder, and the list beside it."""
    base = gr.Dropdown([], label=t("bases.label"), info=t("bases.info"), allow_custom_value=True, interactive=True)
    return base, gr.HTML("", elem_classes="g-list g-bases")


def suited(context: Context) -> Any:  # noqa: ANN401 - a handler of Gradio's
    """The tab's own base, and what else there is for it: choices of the field, and the list."""

    def found(request: gr.Request, tab: str) -> list[Any]:
        say, spec = words(request), context.spec(tab)
        free = room.measure(context.settings.home)
        looked = advice.advise(spec, context.settings, free, say("bases.language"))
        names = [spec.model, *(one.base.id for one in looked if one.base.id != spec.model)]
        return [gr.update(choices=names, value=spec.model), view(say, looked)]

    return found


def view(say: Words, looked: list[advice.Advice]) -> Html:
    """A line for each base: its sizes, what it takes, and why one would take it."""
    head = [say(f"bases.{name}") for name in ("base", "size", "answering", "training", "why")]
    rows = (
        [
            tag("code", one.base.id),
            f"{one.base.shape.parameters / 1e6:,.0f} M",
            fit_size(one.serving),
            fit_size(one.estimate.peak),
            f"{say(f'bases.why.{one.base.key}')} {one.base.licence}.",
        ]
        for one in looked
    )
    return folded(say("bases.title"), table(head, rows))


def fit_size(size: float) -> str:
    """Bytes for a narrow column."""
    return f"{size / 1e9:.1f} GB"
