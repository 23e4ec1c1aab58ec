"""Compare: up to three versions answer one input side by side, streamed at the same time.

Each column is a request of its own through the plugin's `predict`; the pool answers what comes together in one batch.
A base without labels of its own is asked those of a version beside it, unless others were typed. An error of one column
is shown there alone, and Stop, or a caller that leaves, ends all of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import AdapterError
from plugins import TaskPlugin
from store.adapters import BASE, LIVE, NEWEST, Version
from ui.context import Context
from ui.i18n import Words, t
from ui.pulse import LiveView, PagePoll, chosen_of
from ui.tab.answer import ADAPTER_SCHEMA, described, fill, menu
from ui.tab.badge import make_badge
from ui.tab.chat import CONCURRENCY, retry
from ui.tab.diff import marked, plain_answer
from ui.tab.pending_answer import PendingAnswer, follow
from ui.web.access import Action
from ui.web.guard import sentence

DEFAULTS = {"first": BASE, "second": LIVE, "third": NEWEST}
"""What the columns compare until something else is chosen, by the name of the endpoint's argument."""
MENU_SCHEMA = ADAPTER_SCHEMA | {"additional_description": f"{ADAPTER_SCHEMA['additional_description']}, or newest"}


@dataclass(frozen=True)
class Asked:
    """What a tab is asked."""

    inputs: Sequence[Component]
    """Inputs and options, as `predict` takes them."""
    parameters: Sequence[inspect.Parameter]
    page: Component | None
    """The conversation among the inputs, where the tab is one; the message comes before it."""


def build(
    context: Context, plugin: TaskPlugin, asked: Asked, outputs: Sequence[Sequence[Component]], pulse: PagePoll
) -> None:
    """Place the section under a tab and connect it; `outputs` are the components of each column."""
    shown, menus = list[Component](), list[gr.Dropdown]()
    with gr.Accordion(t("compare.title"), open=False, elem_classes="g-compare"):
        gr.Markdown(t("compare.about"), elem_classes="g-about")
        with gr.Row(elem_classes="g-buttons"):
            send = gr.Button(t("compare.send"), variant="primary", scale=3)
            stop = gr.Button(t("task.stop"), scale=1)
        with gr.Row(elem_classes="g-compared"):
            for (name, default), components in zip(DEFAULTS.items(), outputs, strict=True):
                with gr.Column(min_width=240):
                    menus.append(_menu(name, default))
                    for component in components:
                        component.render()  # type: ignore[no-untyped-call]
                    shown += [*components, make_badge()]
    handler = compare(context, plugin.name, asked, len(outputs[0]))
    event = send.click(
        context.allow(Action.ASK, handler), [*asked.inputs, *menus], shown, api_name=f"{plugin.name}_compare",
        api_description=f"The same by up to three versions side by side. {plugin.description}",
        concurrency_limit=CONCURRENCY, concurrency_id=plugin.name, show_progress="minimal", trigger_mode="once",
    )  # fmt: skip
    stop.click(None, cancels=[event], api_visibility="private")
    pulse.add(LiveView(menus, menus, lambda say, *_: context.changes, _choices(context, plugin.name)))


def compare(context: Context, name: str, asked: Asked, width: int) -> Callable[..., Any]:
    """The handler: what is asked, then the version of each column; yields `width` outputs and a badge for each."""

    def stream(*values: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - whatever the components hold
        given, adapters = values[: -len(DEFAULTS)], values[-len(DEFAULTS) :]
        filled = fill(asked.parameters, _question(asked, list(given)))
        chosen = [adapter or default for adapter, default in zip(adapters, DEFAULTS.values(), strict=True)]
        lender = _lender(context, name, chosen)
        columns = [PendingAnswer(adapter, filled, [None] * width, lender=lender) for adapter in chosen]
        yield _flat(columns)
        for _ in follow(context, name, columns, lambda adapter: resolve(context, name, adapter)):
            _tell(columns)
            yield _flat(columns)

    return described(stream, asked.parameters, *DEFAULTS)


def _lender(context: Context, name: str, chosen: Sequence[str]) -> Version | None:
    """The version whose labels a base without any is asked: the first of the columns, or else what the tab has."""
    for adapter in (*chosen, LIVE, NEWEST):
        with suppress(AdapterError):
            live = adapter == LIVE
            version = context.adapters.live(name) if live else context.adapters.get(resolve(context, name, adapter))
            if version and version.plugin == name and version.labels:
                return version
    return None


def _question(asked: Asked, given: list[Any]) -> list[Any]:
    """What to ask: in a conversation whose message box is empty, the last question once more."""
    if asked.page is not None and not given[0]:
        at = asked.inputs.index(asked.page)
        given[0], given[at] = retry(given[at] or [])
    return given


def _flat(columns: Sequence[PendingAnswer]) -> list[Any]:
    return [value for column in columns for value in (*column.outputs, column.told)]


def _tell(columns: Sequence[PendingAnswer]) -> None:
    """Put into a badge why its column failed, and when all have ended what differs from the first whole answer."""
    for column in columns:
        if column.error and "error" not in column.badge:
            about = column.badge or {"version": column.adapter, "base": "", "ms": 0, "notes": []}
            column.badge = {**about, "error": sentence(column.error)}
    whole = [column for column in columns if column.whole]
    if not whole or not all(column.done for column in columns):
        return
    first, *others = whole
    was = plain_answer(first.outputs)
    for column in others:
        now = plain_answer(column.outputs)
        if was is not None and now is not None:
            pieces = [list(piece) for piece in marked(was, now)]
            column.badge = {**column.badge, "than": first.badge["version"], "differs": pieces}


def resolve(context: Context, name: str, adapter: str) -> str:
    """`newest` as the version that it stands for: the newest that is not live, or the live one where it is alone.

    Raises `AdapterError` where the tab has no version.
    """
    if adapter != NEWEST:
        return adapter
    versions = [version.ref for version in context.adapters.versions(name)]
    if not versions:
        why = f"{context.plugin(name).title} has not learned anything yet."
        raise AdapterError("There is no version to compare with.", why, "Train one on the Train page.")
    live = context.adapters.live(name)
    return next((ref for ref in versions if not live or ref != live.ref), versions[0])


def _menu(name: str, default: str) -> gr.Dropdown:
    chosen = gr.Dropdown(
        [default], value=default, label=t(f"compare.{name}"), allow_custom_value=True, interactive=True,
    )  # fmt: skip
    chosen.api_info = lambda: MENU_SCHEMA  # type: ignore[method-assign]
    return chosen


def _choices(context: Context, name: str) -> Callable[..., list[Any]]:
    """Gives the menus their choices as they are now."""

    def choices(say: Words, *chosen: str | None) -> list[Any]:
        try:
            newest = resolve(context, name, NEWEST)
        except AdapterError:
            newest = say("compare.none")
        found = [*menu(context, name, say), (say("compare.newest", version=newest), NEWEST)]
        defaults = DEFAULTS.values()
        return [chosen_of(found, value, default) for value, default in zip(chosen, defaults, strict=True)]

    return choices
