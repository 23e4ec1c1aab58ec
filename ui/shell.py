"""The whole page: a slim header, one tab for each plugin, then Train and Adapters."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr
from gradio.context import Context as Blocks

from errors import GraftError
from plugins._discovery import Tab
from ui import adapters_page, task_tab, train_page, views
from ui.context import Context
from ui.owner import place_account
from ui.pulse import Follower, Pulse
from ui.render import Html, failure, join, span
from ui.strings import Words, english, t

HEADER, TRAIN, ADAPTERS, PULSE, TABS = 1, 2, 3, 4, 10
"""Sections of the page, for `section`."""


def build(context: Context) -> gr.Blocks:
    """The page for the tabs as they are now."""
    # Components are made before the page begins: one that fails then is an error tab, and the page is whole.
    made = [(tab, _parts(context, tab)) for tab in context.tabs]
    pulse = Pulse(context.access, context.load_models)
    Blocks.id = 0
    demo = gr.Blocks(title="Graft", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True)
    with demo:
        section(HEADER, demo)
        here = _header(context, pulse)
        with gr.Tabs(elem_classes="g-tabs"):
            for tab, parts in made:
                section(_place(context, tab), demo, 500)
                _tab(context, tab, parts, pulse)
            section(TRAIN, demo)
            with gr.Tab(t("train.title"), id="train"):
                form = train_page.build(context, demo, pulse, here)
            section(ADAPTERS, demo)
            with gr.Tab(t("adapters.title"), id="adapters"):
                adapters_page.build(context, pulse, form)
        section(PULSE, demo)
        pulse.connect(demo)
    Blocks.id = 10**9
    described, plugins = demo.get_api_info, context.plugins()
    # Replaced on the instance: Gradio writes a .pyi file beside the source of every subclass.
    demo.get_api_info = lambda *a, **k: english(described(*a, **k), plugins)  # type: ignore[method-assign]
    demo.queue(max_size=context.settings.queue, default_concurrency_limit=8, api_open=False)
    return demo


def section(number: int, demo: gr.Blocks | None = None, after: int = 0) -> None:
    """Let the ids of what is made next, components and events, begin at a place that depends on nothing else.

    Gradio numbers in order of making. A page that is open knows those numbers, so one tab must not move another's.
    """
    Blocks.id = 1000 * number + after
    if demo:
        demo.default_config.fn_id = 100 * number


def _place(context: Context, tab: Tab) -> int:
    return context.places.setdefault(tab.path, TABS + len(context.places))


def _header(context: Context, pulse: Pulse) -> gr.Textbox:
    """Places it; gives the unseen component by which the Train page hears of a base."""
    with gr.Row(elem_classes="g-header"):
        gr.HTML(span("g-name", "Graft"), elem_classes="g-brand")
        gr.Markdown(t("header.about"), elem_classes="g-tagline")
        place_account(context, pulse)
    loading = gr.HTML("", elem_classes="g-models")

    def shown(say: Words) -> Sequence[Html]:
        return [views.models(say, context.pool.status())]

    pulse.add(Follower([], [loading], mark=lambda say: hash(shown(say)[0]), refresh=shown))
    return gr.Textbox("", visible="hidden", show_label=False, elem_classes="g-unseen")


def _parts(context: Context, tab: Tab) -> task_tab.Parts | GraftError:
    if tab.plugin is None:
        return tab.error or GraftError(f"{tab.path.name} has no plugin.")
    section(_place(context, tab))
    try:
        return task_tab.make_parts(tab.plugin)
    except GraftError as error:
        return error


def _tab(context: Context, tab: Tab, parts: task_tab.Parts | GraftError, pulse: Pulse) -> None:
    title = tab.plugin.say(tab.title) if tab.plugin else f"{tab.title} ⚠"
    with gr.Tab(title, id=tab.name):
        if tab.plugin is None or isinstance(parts, GraftError):
            gr.HTML(failure(parts if isinstance(parts, GraftError) else GraftError("")))
            return
        _notice(context, tab.name, pulse)
        task_tab.build(context, tab.plugin, parts, pulse)


def _notice(context: Context, name: str, pulse: Pulse) -> None:
    """Why the tab's file could not be reloaded, where that is so; the tab goes on with its earlier code."""
    box = gr.HTML("", elem_classes="g-list")

    def shown(say: Words) -> Sequence[Html]:
        error = context.notices.get(name)
        return [join([failure(error)]) if error else Html("")]

    pulse.add(Follower([], [box], mark=lambda say: hash(shown(say)[0]), refresh=shown))
