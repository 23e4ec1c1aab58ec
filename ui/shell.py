"""The whole page: a header, one tab for each plugin, then Train and Adapters; and its reload when plugins change."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from errors import GraftError
from plugins._discovery import Tab, load, unique
from settings import RELEASE
from ui.adapters import adapters_page
from ui.context import Context, own_key
from ui.html import format
from ui.html.tags import Html, failure, join, span
from ui.i18n import Words, english, t, translations
from ui.pulse import LiveView, PagePoll
from ui.tab import task_tab
from ui.train import train_page
from ui.web.gradio_private import begin_ids, describe_api, exchange, layout
from ui.web.signin import place_account

log = logging.getLogger("graft")
Stamp = tuple[int, int]
HEADER, TRAIN, ADAPTERS, PULSE, TABS = 1, 2, 3, 4, 10
"""Numbers of the page's sections; tabs have those from `TABS` on."""


def build(context: Context) -> gr.Blocks:
    """Make the page for the current tabs."""
    # Components are made before the page begins: one that fails then is an error tab, and the page is whole.
    made = [(tab, _parts(context, tab)) for tab in context.tabs]
    pulse = PagePoll(context.access, context.load_models)
    begin_ids(0)
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
        gr.HTML(span("g-release", f"Graft {RELEASE}"))
    begin_ids(10**9)
    plugins = context.plugins()
    describe_api(demo, lambda described: english(described, plugins))
    demo.queue(max_size=context.settings.queue, default_concurrency_limit=8, api_open=False)
    return demo


def section(number: int, demo: gr.Blocks | None = None, after: int = 0) -> None:
    """Begin the ids of components and events made next at numbers that depend on nothing else.

    Gradio numbers in order of making. An open page knows those numbers, so one tab must not move another's.
    """
    begin_ids(1000 * number + after, demo, 100 * number)


def _place(context: Context, tab: Tab) -> int:
    return context.places.setdefault(tab.path, TABS + len(context.places))


def _header(context: Context, pulse: PagePoll) -> gr.Textbox:
    """Place the header and return the hidden component through which the Train page learns of a loaded base."""
    with gr.Row(elem_classes="g-header"):
        gr.HTML(span("g-name", "Graft"), elem_classes="g-brand")
        gr.Markdown(t("header.about"), elem_classes="g-tagline")
        place_account(context, pulse)
    loading = gr.HTML("", elem_classes="g-models")

    def shown(say: Words) -> Sequence[Html]:
        return [format.models(say, context.pool.status())]

    pulse.add(LiveView([], [loading], mark=lambda say: hash(shown(say)[0]), refresh=shown))
    return gr.Textbox("", visible="hidden", show_label=False, elem_classes="g-unseen")


def _parts(context: Context, tab: Tab) -> task_tab.Parts | GraftError:
    if tab.plugin is None:
        return tab.error or GraftError(f"{tab.path.name} has no plugin.")
    section(_place(context, tab))
    try:
        return task_tab.make_parts(tab.plugin)
    except GraftError as error:
        return error


def _tab(context: Context, tab: Tab, parts: task_tab.Parts | GraftError, pulse: PagePoll) -> None:
    title = tab.plugin.say(tab.title) if tab.plugin else f"{tab.title} ⚠"
    with gr.Tab(title, id=tab.name):
        if tab.plugin is None or isinstance(parts, GraftError):
            gr.HTML(failure(parts if isinstance(parts, GraftError) else GraftError("")))
            return
        _notice(context, tab.name, pulse)
        task_tab.build(context, tab.plugin, parts, pulse)


def _notice(context: Context, name: str, pulse: PagePoll) -> None:
    """Place the reason why a tab's file could not be reloaded; the tab goes on with its earlier code."""
    box = gr.HTML("", elem_classes="g-list")

    def shown(say: Words) -> Sequence[Html]:
        error = context.notices.get(name)
        return [join([failure(error)]) if error else Html("")]

    pulse.add(LiveView([], [box], mark=lambda say: hash(shown(say)[0]), refresh=shown))


class Reloader:
    """Rebuilds the tabs whose plugin files have changed, each time it is called."""

    def __init__(self, context: Context, page: gr.Blocks) -> None:
        """`page` is the page that `build` made of `context`."""
        self._context, self._page = context, page
        self._stamps = _stamps(context.settings.plugins)

    def __call__(self) -> None:
        """Reload the files that changed; the others are not touched."""
        found, context = _stamps(self._context.settings.plugins), self._context
        old = {tab.path: tab for tab in context.tabs}
        tabs = [
            old[path] if path in old and stamp == self._stamps.get(path) else self._reload(path, old.get(path))
            for path, stamp in found.items()
        ]
        self._stamps = found
        context.tabs = unique(tabs)
        for tab in old.values():
            if tab.plugin and tab.plugin.brings_own() and tab not in context.tabs:
                context.pool.forget(own_key(tab.plugin))
        context.load_models()
        self._exchange(build(context))

    def _reload(self, path: Path, before: Tab | None) -> Tab:
        """Return the tab of a new or changed file, or the earlier one if the new code fails."""
        tab = load(path)
        error = tab.error
        try:
            if tab.plugin:
                task_tab.make_parts(tab.plugin)
        except GraftError as problem:
            error = problem
        self._context.notices.pop(before.name if before else tab.name, None)
        if error is None:
            log.info("reloaded %s", path.name)
            return tab
        if before is None or before.plugin is None:
            return Tab(path, path.stem, path.stem, error=error)
        self._context.notices[before.name] = error
        return before

    def _exchange(self, fresh: gr.Blocks) -> None:
        """Put the content of `fresh` into the page that is being served, unless it is the same."""
        if layout(self._page) != layout(fresh):
            exchange(self._page, fresh, translations(self._context.plugins()))


def _stamps(folder: Path) -> dict[Path, Stamp]:
    """Return the time and size of each plugin's file, in the order of tabs."""
    paths = sorted(folder.glob("[!_.]*.py"))
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.exists()}
