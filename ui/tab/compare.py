"""Comparison: up to three versions answer one input side by side, streamed at the same time.

Each column is a request of its own; the pool answers them in one batch. A base without labels of its own is asked
the labels of a version beside it, unless others were typed. An error is shown in its column alone; Stop, or a client
that leaves, ends all columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import gradio as gr
from gradio.components import Component

from errors import AdapterError, Text
from plugins import TaskPlugin
from store.adapters import BASE, LIVE, NEWEST, Version
from ui.context import Context
from ui.html.format import marked
from ui.i18n import Words, t
from ui.pulse import LiveView, PagePoll, chosen_of
from ui.tab.answer import PendingAnswer, described, fill, follow, menu, plain_answer, version_menu
from ui.tab.badge import make_badge
from ui.tab.chat import answering, endpoint, retry
from ui.web.access import Action, sentence

if TYPE_CHECKING:
    from ui.tab.task_tab import Parts

DEFAULTS = {"first": BASE, "second": LIVE, "third": NEWEST}
"""Version of each column until another is chosen, by the name of the endpoint's argument."""


def build(context: Context, plugin: TaskPlugin, parts: Parts, poll: PagePoll) -> None:
    """Place and connect the comparison below a tab."""
    shown, menus = list[Component](), list[gr.Dropdown]()
    with gr.Accordion(t("compare.title"), open=False, elem_classes="g-compare"):
        gr.Markdown(t("compare.about"), elem_classes="g-about")
        with gr.Row(elem_classes="g-buttons"):
            send = gr.Button(t("compare.send"), variant="primary", scale=3)
            stop = gr.Button(t("task.stop"), scale=1)
        with gr.Row(elem_classes="g-compared"):
            for (name, default), components in zip(DEFAULTS.items(), parts.compared, strict=True):
                with gr.Column(min_width=240):
                    menus.append(version_menu(default, f"compare.{name}", ", or newest"))
                    for component in components:
                        component.render()  # type: ignore[no-untyped-call]
                    shown += [*components, make_badge()]
    handler = context.allow(Action.ASK, compare(context, plugin.name, parts))
    description = f"The same by up to three versions side by side. {plugin.description}"
    api = endpoint(plugin) | {"api_name": f"{plugin.name}_compare", "api_description": description}
    event = send.click(inputs=[*parts.given, *menus], **answering(plugin, handler, shown), **api)
    stop.click(None, cancels=[event], api_visibility="private")
    poll.add(LiveView(menus, menus, lambda say, *_: context.changes, _choices(context, plugin.name)))


def compare(context: Context, name: str, parts: Parts) -> Callable[..., Any]:
    """Return the handler of a comparison, which yields the outputs and a badge for each column."""

    def stream(*values: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - whatever the components hold
        given, adapters = values[: -len(DEFAULTS)], values[-len(DEFAULTS) :]
        filled = fill(parts.parameters, _last_question(parts, list(given)))
        chosen = [adapter or default for adapter, default in zip(adapters, DEFAULTS.values(), strict=True)]
        lender = _lender(context, name, chosen)
        columns = [PendingAnswer(adapter, filled, [None] * len(parts.outputs), lender=lender) for adapter in chosen]
        yield _flat(columns)
        for _ in follow(context, name, columns, lambda adapter: resolve(context, name, adapter)):
            _complete_badges(columns)
            yield _flat(columns)

    return described(stream, parts.parameters, *DEFAULTS)


def _lender(context: Context, name: str, chosen: Sequence[str]) -> Version | None:
    """Return the version whose labels a base without labels is asked: one of a column, or else of the tab."""
    for adapter in (*chosen, LIVE, NEWEST):
        with suppress(AdapterError):
            live = adapter == LIVE
            version = context.adapters.live(name) if live else context.adapters.get(resolve(context, name, adapter))
            if version and version.plugin == name and version.labels:
                return version
    return None


def _last_question(parts: Parts, given: list[Any]) -> list[Any]:
    """Return the inputs; an empty message is replaced by the last question of the conversation."""
    if parts.conversation and not given[0]:
        at = parts.given.index(parts.conversation)
        given[0], given[at] = retry(given[at] or [])
    return given


def _flat(columns: Sequence[PendingAnswer]) -> list[Any]:
    return [value for column in columns for value in (*column.outputs, column.status)]


def _complete_badges(columns: Sequence[PendingAnswer]) -> None:
    """Add errors to the badges, and once all columns have ended the differences from the first whole answer."""
    for column in columns:
        if column.error and "error" not in column.badge:
            about = column.badge or {"version": column.adapter, "base": "", "ms": 0, "notes": []}
            column.badge = {**about, "error": sentence(column.error)}
    whole = [column for column in columns if column.whole]
    if not all(column.done for column in columns):
        return
    for column in whole[1:]:
        was, now = plain_answer(whole[0].outputs), plain_answer(column.outputs)
        if was is not None and now is not None:
            pieces = [list(piece) for piece in marked(was, now)]
            column.badge = {**column.badge, "than": whole[0].badge["version"], "differs": pieces}


def resolve(context: Context, name: str, adapter: str) -> str:
    """Resolve `newest`: the newest version that is not live, or the live one where it is the only one.

    Raises `AdapterError` where the tab has no version.
    """
    if adapter != NEWEST:
        return adapter
    versions = [version.ref for version in context.adapters.versions(name)]
    if not versions:
        why = Text("{tab} has not learned anything yet.", tab=context.plugin(name).title)
        raise AdapterError("There is no version to compare with.", why, "Train one on the Train page.")
    live = context.adapters.live(name)
    return next((ref for ref in versions if not live or ref != live.ref), versions[0])


def _choices(context: Context, name: str) -> Callable[..., list[Any]]:
    """Return the refresh of the menus."""

    def choices(say: Words, *chosen: str | None) -> list[Any]:
        try:
            newest = resolve(context, name, NEWEST)
        except AdapterError:
            newest = say("compare.none")
        found = [*menu(context, name, say), (say("compare.newest", version=newest), NEWEST)]
        return [chosen_of(found, *pair) for pair in zip(chosen, DEFAULTS.values(), strict=True)]

    return choices
