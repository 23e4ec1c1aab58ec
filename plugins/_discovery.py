"""Discovery of plugins: each file of a folder without a leading underscore is a tab, or an error tab with the reason.

Each file is imported on its own, so that it can be imported again when it is saved, and a file that fails affects no
other. Plugins are trusted code: they run with all rights of this process.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import logging
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

from errors import GraftError, PluginError
from plugins import TaskPlugin

log = logging.getLogger("graft")

RESERVED = ("train", "adapters")
PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Tab:
    """One file of the folder: a plugin, or the error of loading it."""

    path: Path
    name: str
    title: str
    plugin: TaskPlugin | None = None
    error: GraftError | None = None

    @classmethod
    def failed(cls, path: Path, error: GraftError) -> Tab:
        """Return the error tab of a file."""
        return cls(path, path.stem, path.stem, error=error)


def discover(folder: Path) -> list[Tab]:
    """Load every plugin of `folder`, in the order of file names; a second one of a name becomes an error tab."""
    return unique(load(path) for path in plugin_files(folder))


def plugin_files(folder: Path) -> list[Path]:
    """Return the files of `folder` that are plugins, in the order of their tabs."""
    return sorted(folder.glob("[!_.]*.py"))


def unique(found: Iterable[Tab]) -> list[Tab]:
    """Replace each plugin by an error tab whose name belongs to the page itself or to an earlier plugin."""
    tabs: list[Tab] = []
    owners = dict.fromkeys(RESERVED, "Graft's own page")
    for tab in found:
        if tab.plugin and tab.name in owners:
            what, why = f"The name {tab.name!r} is taken.", f"{owners[tab.name]} has it."
            then = f"Give the plugin in {tab.path.name} another name."
            tab = Tab.failed(tab.path, PluginError(what, why, then))
        elif tab.plugin:
            owners[tab.name] = tab.path.name
        tabs.append(tab)
    return tabs


def load(path: Path) -> Tab:
    """Import one file; an error becomes an error tab, and only `KeyboardInterrupt` is raised."""
    name = f"plugins.{path.stem}" if path.parent.resolve() == PACKAGE else f"graft_plugin_{path.stem}"
    try:
        plugin = _plugin_class(_import(path, name), path)()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # BaseException: a plugin that calls sys.exit must not end the process.
        log.warning("plugin %s", path.name, exc_info=error)
        return Tab.failed(path, _explain(path, error))
    return Tab(path, plugin.name, plugin.title, plugin)


class _SourceLoader(importlib.machinery.SourceFileLoader):
    """Always compiles from source: cached bytecode has times in whole seconds and would hide a second save in one."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _import(path: Path, name: str) -> ModuleType:
    """Import a file into `sys.modules`, so that its classes can be pickled; the earlier module stays if that fails."""
    spec = importlib.util.spec_from_file_location(name, path, loader=_SourceLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise PluginError(f"{path.name} is not a Python file.")
    module, before = importlib.util.module_from_spec(spec), sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name)
        if before:
            sys.modules[name] = before
        raise
    return module


def _plugin_class(module: ModuleType, path: Path) -> type[TaskPlugin]:
    """Return the one plugin class that the module defines, its facts checked."""
    defined = [c for c in vars(module).values() if isinstance(c, type) and c.__module__ == module.__name__]
    classes = [c for c in defined if issubclass(c, TaskPlugin)]
    if len(classes) != 1:
        why = f"It defines {', '.join(c.__name__ for c in classes) or 'none'}."
        raise PluginError(f"{path.name} must define one TaskPlugin class.", why, "Keep one tab in one file.")
    classes[0].check()
    return classes[0]


def _explain(path: Path, error: BaseException) -> GraftError:
    if isinstance(error, GraftError):
        return error
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    why = f"{f'Line {line}: ' if line else ''}{type(error).__name__}{f': {message}' if message else ''}."
    return PluginError(f"{path.name} cannot be imported.", why, "Correct the file and save it; the tab reloads.")
