"""Saving a plugin's file reloads that tab alone, in the running process.

New code answers at once, because handlers ask for their plugin at each request. Where the tab also looks different,
the page is built again and its content exchanged; ids of the other tabs stay what they are (`shell.section`), so pages
that are open go on working and are asked to reload. A file that fails leaves its tab as it was, with the reason.
"""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path

import gradio as gr
from gradio.utils import reassign_pending_event_fns

from errors import GraftError
from plugins._discovery import Tab, load, unique
from ui import shell, task_tab
from ui.context import Context, own_key
from ui.strings import translations

log = logging.getLogger("graft")
Stamp = tuple[int, int]


class Reloader:
    """Brings a page up to date with its folder of plugins, whenever it is called."""

    def __init__(self, context: Context, page: gr.Blocks) -> None:
        """`page` is what `shell.build` made of `context`."""
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
        self._exchange(shell.build(context))

    def _reload(self, path: Path, before: Tab | None) -> Tab:
        """The tab of a new or changed file, or the one from before if the new code fails."""
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
        page, app = self._page, self._page.app
        if layout(page) == layout(fresh):
            return
        for child in fresh.children:
            child.parent = page
        fresh.default_config.root_block = page
        page.children, page.default_config = fresh.children, fresh.default_config
        page.get_api_info = fresh.get_api_info  # type: ignore[method-assign]
        page.app_id, page.i18n_instance = fresh.app_id, translations(self._context.plugins())
        page.config = page.get_config_file()
        app.api_info = app.all_app_info = None
        for session in app.state_holder.session_data.values():
            session.blocks_config = copy.copy(page.default_config)
        reassign_pending_event_fns(page)


def layout(page: gr.Blocks) -> str:
    """Everything that an open page knows of its components and events, and what its handlers know of `predict`."""
    config = page.get_config_file()
    known = {key: config[key] for key in ("components", "layout", "dependencies")}
    predicts = [getattr(function.fn, "predicts", None) for function in page.fns.values()]
    return json.dumps([known, predicts], default=str)


def _stamps(folder: Path) -> dict[Path, Stamp]:
    """Each plugin's file with its time and size, in the order of tabs."""
    paths = sorted(folder.glob("[!_.]*.py"))
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.exists()}
