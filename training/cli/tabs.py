"""The tabs that there are, for processes that import no plugin, and the command `plugins`, which lists them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import ConfigError, GraftError
from settings import Settings
from store import processes
from tasks import Columns, TabSpec
from training.cli.terminal import print_table


def find_tab(name: str, base: str | None = None) -> TabSpec:
    """Return the facts of a tab, with another `base` if one is named. Raises `GraftError`."""
    tabs = read_tabs()
    found = tabs.get(name)
    if found is None:
        raise ConfigError("--plugin", [f"There is no tab {name!r}; there are: {', '.join(tabs)}."])
    if "error" in found:
        raise ConfigError("--plugin", [found["error"]])
    columns = Columns(**found["columns"]) if found["columns"] else None
    if base and Path(base).is_dir():
        base = str(Path(base).absolute())
    return TabSpec(name, base or found["model"], found["task"], columns, found["prompt"])


def print_tabs(options: argparse.Namespace, settings: Settings) -> None:
    """Print a line for each tab. Raises `GraftError`."""
    lines = [("tab", "title", "task", "base")]
    for name, tab in read_tabs().items():
        lines.append((name, tab["title"], tab.get("task", "-"), tab.get("model") or tab.get("error", "")))
    print_table(lines)


def read_tabs() -> Mapping[str, Mapping[str, Any]]:
    """Return the facts of every tab by its name, read from a child process. Raises `GraftError`."""
    died = ConfigError("GRAFT_PLUGINS", ["The process that imports the plugins ended early."])
    lines = processes.lines(processes.python("plugins"), GraftError.from_dict, died)
    # A plugin may print when it is imported; the facts are the lines that begin like this.
    tabs = [json.loads(line) for line in lines if line.startswith('{"name": ')]
    return {tab["name"]: tab for tab in tabs}
