"""The example data sets, and which of them fit a tab."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from errors import DataError
from plugins import TaskPlugin
from settings import REPOSITORY

FOLDER = REPOSITORY / "examples"


def fitting(plugin: TaskPlugin) -> list[str]:
    """The examples that have the columns which the tab names."""
    wanted = set(plugin.columns.names) if plugin.columns else set()
    return [path.name for path in _files() if wanted and wanted <= columns(path)]


def find(name: str) -> Path:
    """The example of that name; raises `DataError`. Only names that exist are accepted, never paths."""
    for path in _files():
        if path.name == name:
            return path
    raise DataError(f"There is no example {name!r}.", "", "Choose one from the list, or upload a file.")


def columns(path: Path) -> set[str]:
    """The columns named in the first line."""
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            return set(json.loads(file.readline() or "{}"))
        return set(next(csv.reader(file), ()))


def relative(path: str) -> str:
    """A path as a user in the repository would type it."""
    return str(Path(path).relative_to(REPOSITORY)) if Path(path).is_relative_to(REPOSITORY) else path


def _files() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*") if path.suffix in (".csv", ".jsonl"))
