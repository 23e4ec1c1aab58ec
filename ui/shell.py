"""The whole page: a header, one tab for each plugin, then Train and Adapters; and its reload when plugins change."""

from __future__ import annotations

import logging
from pathlib import Path

import gradio as gr

from errors import GraftError
from plugins._discovery import Tab, load, plugin_files, unique
from settings import RELEASE
from ui.adapters import adapters_page
from ui.context import Context, own_key
from ui.html import format
from ui.html.tags import Html, failure, span
from ui.i18n import Words, english, t, translations
from ui.pulse import LiveView, PagePoll
from ui.tab import task_tab
from ui.train import train_page
from ui.web.gradio_private import begin_ids, describe_api, exchange, layout
from ui.web.signin import place_account

log = logging.getLogger("graft")
Stamp = tuple[int, int]
HEADER, TRAIN, ADAPTERS, PULSE, TABS = 1, 2, 3, 4, 10
"""Numbers of the page's sections; plugins have those from `TABS` on."""


def build(context: Context) -> gr.Blocks:
    """Make the page for the current tabs."""
    # Components are made before the page: a plugin whose components fail becomes an error tab of a whole page.
    made = [(tab, _parts(context, tab)) for tab in context.tabs]
    poll = PagePoll(context.access, context.load_models)
    begin_ids(0)
    demo = gr.Blocks(title="Graft", analytics_enabled=False, delete_cache=(3600, 86400), fill_width=True)
    with demo:
        section(HEADER, demo)
        _header(context, poll)
        with gr.Tabs(elem_classes="g-tabs"):
            for tab, parts in made:
                section(_number(context, tab), demo, 500)
                _tab(context, tab, parts, poll)
            section(TRAIN, demo)
            with gr.Tab(t("train.title"), id="train"):
                form = train_page.build(context, demo, poll)
            section(ADAPTERS, demo)
            with gr.Tab(t("adapters.title"), id="adapters"):
                adapters_page.build(context, poll, form)
        section(PULSE, demo)
        poll.connect(demo)
        gr.HTML(span("g-release", f"Graft {RELEASE}"))
    begin_ids(10**9)
    plugins = context.plugins()
    describe_api(demo, lambda described: english(described, plugins))
    demo.queue(max_size=context.settings.queue, default_concurrency_limit=8, api_open=False)
    return demo


def section(number: int, demo: gr.Blocks | None = None, after: int = 0) -> None:
    """Begin the ids of the components and events of a section at numbers that no other section changes.

    Gradio numbers them in the order in which they are made. An open page refers to them by these ids, so the reload of
    one tab must not change those of another.
    """
    begin_ids(1000 * number + after, demo, 100 * number)


def _number(context: Context, tab: Tab) -> int:
    """Return the section number of a plugin's file, which it keeps for the life of the process."""
    return context.sections.setdefault(tab.path, TABS + len(context.sections))


def _header(context: Context, poll: PagePoll) -> None:
    with gr.Row(elem_classes="g-header"):
        gr.HTML(span("g-name", "Graft"), elem_classes="g-brand")
        gr.Markdown(t("header.about"), elem_classes="g-tagline")
        place_account(context, poll)
    loading = gr.HTML("", elem_classes="g-models")
    poll.add(LiveView.of_html(loading, lambda say: format.models(say, context.pool.status())))


def _parts(context: Context, tab: Tab) -> task_tab.Parts | GraftError:
    if tab.plugin is None:
        return tab.error or GraftError(f"{tab.path.name} has no plugin.")
    section(_number(context, tab))
    try:
        return task_tab.make_parts(tab.plugin)
    except GraftError as error:
        return error


def _tab(context: Context, tab: Tab, parts: task_tab.Parts | GraftError, poll: PagePoll) -> None:
    title = tab.plugin.say(tab.title) if tab.plugin else f"{tab.title} ⚠"
    with gr.Tab(title, id=tab.name):
        if isinstance(parts, GraftError):
            gr.HTML(failure(parts))
        elif tab.plugin:
            _notice(context, tab.name, poll)
            task_tab.build(context, tab.plugin, parts, poll)


def _notice(context: Context, name: str, poll: PagePoll) -> None:
    """Place the reason why a tab's file could not be reloaded, above the tab of its earlier code."""

    def shown(say: Words) -> Html:
        error = context.notices.get(name)
        return failure(error) if error else Html("")

    poll.add(LiveView.of_html(gr.HTML("", elem_classes="g-list"), shown))


class Reloader:
    """Rebuilds the tabs whose plugin files have changed since the last call."""

    def __init__(self, context: Context, page: gr.Blocks) -> None:
        """`page` is the page that `build` made of `context`."""
        self._context, self._page = context, page
        self._stamps = _stamps(context.settings.plugins)

    def __call__(self) -> None:
        """Reload the changed files, and no others."""
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
        tab, notices = load(path), self._context.notices
        parts = _parts(self._context, tab)
        notices.pop(before.name if before else tab.name, None)
        if not isinstance(parts, GraftError):
            log.info("reloaded %s", path.name)
            return tab
        if before is None or before.plugin is None:
            return Tab.failed(path, parts)
        notices[before.name] = parts
        return before

    def _exchange(self, fresh: gr.Blocks) -> None:
        """Replace the content of the served page by that of `fresh`, unless it is the same."""
        if layout(self._page) != layout(fresh):
            exchange(self._page, fresh, translations(self._context.plugins()))


def _stamps(folder: Path) -> dict[Path, Stamp]:
    """Return the modification time and size of each plugin's file, in the order of tabs."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in plugin_files(folder) if path.exists()}
