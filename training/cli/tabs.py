"""The facts of a tab, for a process that imports no plugin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from errors import ConfigError
from settings import REPOSITORY, child_environment
from tasks import Columns, TabSpec


def find_tab(name: str, base: str | None = None) -> TabSpec:
    """The facts of a tab, asked of a child process, so that training never imports a plugin. Raises `GraftError`."""
    child = subprocess.run(
        [sys.executable, "-m", "plugins"],
        cwd=REPOSITORY, env=child_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    # A plugin may print when it is imported; the facts are the lines that are theirs.
    lines = [line for line in child.stdout.splitlines() if line.startswith('{"name": ')]
    tabs = {tab["name"]: tab for tab in map(json.loads, lines)}
    found = tabs.get(name)
    if found is None:
        raise ConfigError("--plugin", [f"There is no tab {name!r}; there are: {', '.join(tabs) or child.stderr}."])
    if "error" in found:
        raise ConfigError("--plugin", [found["error"]])
    columns = Columns(**found["columns"]) if found["columns"] else None
    if base and Path(base).is_dir():
        base = str(Path(base).absolute())
    return TabSpec(name, base or found["model"], found["task"], columns, found["prompt"])
