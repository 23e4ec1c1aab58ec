"""The example data sets, and which of them fit a tab."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from errors import DataError
from plugins import TaskPlugin
from settings import REPOSITORY

FOLDER = REPOSITORY / "examples"
LONGEST_LINE = 100_000
"""Characters of a first line that are looked at."""


def fitting(plugin: TaskPlugin) -> list[str]:
    """The examples that have the columns which the tab names."""
    wanted = set(plugin.columns.names) if plugin.columns else set()
    return [path.name for path in _files() if wanted and wanted <= set(columns(path))]


def find(name: str) -> Path:
    """The example of that name; raises `DataError`. Only names that exist are accepted, never paths."""
    for path in _files():
        if path.name == name:
            return path
    raise DataError(f"There is no example {name!r}.", "", "Choose one from the list, or upload a file.")


def columns(path: Path) -> list[str]:
    """The columns named in the first line of a text file; none where it does not name any."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            line = file.readline(LONGEST_LINE)
        if path.suffix == ".jsonl":
            return list(json.loads(line))
        return next(csv.reader([line], delimiter="\t" if path.suffix == ".tsv" else ","), [])
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def relative(path: str) -> str:
    """A path as a user in the repository would type it."""
    return str(Path(path).relative_to(REPOSITORY)) if Path(path).is_relative_to(REPOSITORY) else path


def _files() -> list[Path]:
    return sorted(path for path in FOLDER.glob("*") if path.suffix in (".csv", ".jsonl"))
