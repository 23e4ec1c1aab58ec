"""Shared state of the page's handlers: the tabs, the pool of bases, and the stores."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from errors import GraftError, PluginError, Text
from plugins import TaskPlugin
from plugins._discovery import Tab
from serving.pool import Pool
from settings import Settings
from store.adapters import AdapterStore
from store.corrections import Corrections
from tasks import TabSpec
from ui.i18n import Words
from ui.web.access import Access, Action, guarded

if TYPE_CHECKING:
    from training.runs.runs import Runs

log = logging.getLogger("graft")
F = TypeVar("F", bound=Callable[..., Any])

RETRY_S = 30.0
"""Seconds after which a base that failed to load is tried again."""


@dataclass
class Context:
    """Everything that handlers work with.

    A reload replaces `tabs`, so a handler keeps the name of its plugin and calls `plugin()` for each request.
    """

    settings: Settings
    tabs: Sequence[Tab]
    pool: Pool
    adapters: AdapterStore
    runs: Runs
    changes: int = 0
    """Number of changes of the versions on disk; pages compare it to notice one."""
    notices: dict[str, GraftError] = field(default_factory=dict)
    """Errors of plugin files that could not be reloaded, by the tab's name; the tab keeps its earlier code."""
    sections: dict[Path, int] = field(default_factory=dict)
    """Section number of each plugin file ever loaded; see `shell.section`."""
    corrections: Corrections = field(init=False)
    access: Access = field(init=False)
    _failed: dict[str, float] = field(default_factory=dict)
    """Time at which the failure of each base was noticed."""
    _ready: frozenset[str] = frozenset()
    """Bases that were in memory when live versions were last loaded."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.corrections = Corrections(self.settings.home)
        self.access = Access(self.settings)

    def plugin(self, name: str) -> TaskPlugin:
        """Return the current plugin of a name. Raises `PluginError`."""
        for plugin in self.plugins():
            if plugin.name == name:
                return plugin
        what = Text("There is no tab {tab}.", tab=repr(name))
        raise PluginError(what, "Its file is gone or has an error.", "Reload the page.")

    def spec(self, name: str) -> TabSpec:
        """Return the facts of a tab, with its base as the settings have it."""
        return self.plugin(name).spec(self.settings.models)

    def title(self, say: Words, name: str) -> str:
        """Return the title of a tab in the language of `say`, or its name where the tab is gone."""
        plugin = next((plugin for plugin in self.plugins() if plugin.name == name), None)
        return plugin.words.get(say.language, {}).get(plugin.title, plugin.title) if plugin else name

    def plugins(self) -> list[TaskPlugin]:
        """Return the plugins that could be loaded."""
        return [tab.plugin for tab in self.tabs if tab.plugin]

    def learners(self) -> list[TaskPlugin]:
        """Return the plugins that can be trained."""
        return [plugin for plugin in self.plugins() if plugin.spec(self.settings.models).learns]

    def load_models(self) -> None:
        """Begin to load each base of the tabs that is neither loaded nor loading, or failed `RETRY_S` ago."""
        with self._lock:
            statuses = self.pool.status()
            failed = {status.id for status in statuses if status.phase == "failed"}
            now = time.monotonic()
            since = {key: self._failed.get(key, now) for key in failed}
            again = {key for key in failed if now - since[key] >= RETRY_S}
            self._failed = {key: since[key] for key in failed - again}
            known = {status.id for status in statuses} - again
            for plugin in self.plugins():
                key = own_key(plugin) if plugin.brings_own() else self.spec(plugin.name).model
                if key not in known:
                    self.pool.declare(key, plugin.load if plugin.brings_own() else None)
            ready = frozenset(status.id for status in statuses if status.phase == "ready")
            if again or ready != self._ready:
                self._ready = ready
                threading.Thread(target=self._warm, name="graft-warm", daemon=True).start()

    def versions_changed(self) -> None:
        """Count a change of the versions on disk, and load new live versions before the first request."""
        self.changes += 1
        self._warm()

    def _warm(self) -> None:
        """Load live versions, and their bases where these are not the tabs' own."""
        for plugin in self.learners():
            try:
                self.pool.warm(self.spec(plugin.name))
            except GraftError as error:
                log.warning("%s: %s", plugin.name, error)

    def allow(self, action: Action, handler: F, silently: bool = False) -> F:
        """Return the handler, `guarded`; every handler of the page is made so."""
        return guarded(self.access, action, handler, silently)


def own_key(plugin: TaskPlugin) -> str:
    """Return the key in the pool of the module that a plugin loads itself."""
    return f"{plugin.name} (own model)"
