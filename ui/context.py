"""What every part of the page works with: the tabs as they are now, and the stores behind them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from errors import GraftError, PluginError
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
"""How long after a failure was seen a base is tried again, for example because the network is back."""


@dataclass
class Context:
    """Shared by all handlers. `tabs` may be replaced while requests run: a handler asks for its plugin each time."""

    settings: Settings
    tabs: Sequence[Tab]
    pool: Pool
    adapters: AdapterStore
    runs: Runs
    changes: int = 0
    """Grows with every change of the versions on disk; pages compare it with what they have seen."""
    notices: dict[str, GraftError] = field(default_factory=dict)
    """Why the file of a tab could not be reloaded, by the tab's name; the tab goes on with its earlier code."""
    places: dict[Path, int] = field(default_factory=dict)
    """A number for each plugin file that was ever seen, which it keeps: the ids of its components begin there."""
    corrections: Corrections = field(init=False)
    """What people have put right in the tabs."""
    access: Access = field(init=False)
    """Who may do what."""
    _failed: dict[str, float] = field(default_factory=dict)
    """When the failure of a base was first seen."""
    _ready: frozenset[str] = frozenset()
    """The bases that were in memory when the live versions were last brought there."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.corrections = Corrections(self.settings.home)
        self.access = Access(self.settings)

    def plugin(self, name: str) -> TaskPlugin:
        """The plugin of that name as it is now; raises `PluginError`."""
        for tab in self.tabs:
            if tab.plugin and tab.name == name:
                return tab.plugin
        raise PluginError(f"There is no tab {name!r}.", "Its file is gone or has an error.", "Reload the page.")

    def spec(self, name: str) -> TabSpec:
        """The facts of a tab, with the base that the operator chose."""
        return self.plugin(name).spec(self.settings.models)

    def title(self, say: Words, name: str) -> str:
        """What the page calls a tab, in the reader's language; its name, where it is gone."""
        plugin = next((plugin for plugin in self.plugins() if plugin.name == name), None)
        return plugin.words.get(say.language, {}).get(plugin.title, plugin.title) if plugin else name

    def plugins(self) -> list[TaskPlugin]:
        """Every plugin that works."""
        return [tab.plugin for tab in self.tabs if tab.plugin]

    def learners(self) -> list[TaskPlugin]:
        """The plugins that can be trained."""
        return [plugin for plugin in self.plugins() if plugin.spec(self.settings.models).learns]

    def load_models(self) -> None:
        """Begin to load what the tabs need, where that has not begun or failed a while ago; returns at once."""
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
        """Tell the pages, and bring new live versions into memory before anybody asks for them."""
        self.changes += 1
        self._warm()

    def _warm(self) -> None:
        """Live versions into memory, and with them their bases where these are others than the tabs' own."""
        for plugin in self.learners():
            try:
                self.pool.warm(self.spec(plugin.name))
            except GraftError as error:
                log.warning("%s: %s", plugin.name, error)

    def allow(self, action: Action, handler: F, silently: bool = False) -> F:
        """A handler of an event, for those who may do `action`; nothing is connected to the page without.

        `silently` changes nothing for the others, in place of telling them: for what a page does by itself.
        """
        return guarded(self.access, action, handler, silently)


def own_key(plugin: TaskPlugin) -> str:
    """What the pool calls a module that a plugin brings itself."""
    return f"{plugin.name} (own model)"
