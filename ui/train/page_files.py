"""Files of the page: the example data sets that it offers, and files that a button hands to the browser."""

from __future__ import annotations

import csv
import json
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from errors import DataError, RunError
from plugins import TaskPlugin
from settings import REPOSITORY
from ui.pulse import ASKED
from ui.web.gradio_private import cache_folder

EXAMPLES = REPOSITORY / "examples"
LONGEST_LINE = 100_000
"""Characters of a file's first line that are read to find its columns."""
DOWNLOAD = """(file) => {
  if (!file) return;
  const link = Object.assign(document.createElement('a'), {href: file.url, download: file.orig_name});
  document.body.append(link);
  link.click();
  link.remove();
}"""
"""Runs in the browser: downloads a file in the click that made it; Gradio's own button needs two."""


def fitting(plugin: TaskPlugin) -> list[str]:
    """Return the names of the examples that have the columns which the tab learns from."""
    wanted = set(plugin.columns.names) if plugin.columns else set()
    return [path.name for path in _examples() if wanted and wanted <= set(_columns(path))]


def find(name: str) -> Path:
    """Return the path of an example; raises `DataError`. Only names that exist are accepted, never paths."""
    for path in _examples():
        if path.name == name:
            return path
    raise DataError(f"There is no example {name!r}.", "", "Choose one from the list, or upload a file.")


def _columns(path: Path) -> list[str]:
    """Return the columns named in the first line of a text file; an empty list where it names none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            line = file.readline(LONGEST_LINE)
        if path.suffix == ".jsonl":
            return list(json.loads(line))
        return next(csv.reader([line]), [])
    except (OSError, ValueError, TypeError, csv.Error):
        return []


def relative(path: str) -> str:
    """Return a path as a user in the repository would type it."""
    return str(Path(path).relative_to(REPOSITORY)) if Path(path).is_relative_to(REPOSITORY) else path


def download(
    button: gr.Button,
    handler: Callable[..., Any],
    inputs: Component | Sequence[Component] | None = None,
    others: Sequence[Any] = (),
    **options: Any,  # noqa: ANN401
) -> Dependency:
    """Let `button` download the file whose path `handler` returns after the updates of `others`; returns the click."""
    file = gr.File(visible="hidden", show_label=False, elem_classes="g-unseen")
    made = button.click(handler, inputs, [*others, file], **ASKED, **options)
    made.success(None, file, None, js=DOWNLOAD, api_visibility="private")
    return made


def page_copy(source: Path, name: str) -> str:
    """Copy a run's file to where Gradio may serve it from and clears it away within a day; raises `RunError`."""
    folder = cache_folder() / secrets.token_hex(16)
    try:
        folder.mkdir(parents=True)
        return str(shutil.copyfile(source, folder / name))
    except OSError as error:
        raise RunError(f"{name} cannot be read.", f"{error.strerror}.", "It may have been deleted.") from error


def _examples() -> list[Path]:
    return sorted(path for path in EXAMPLES.glob("*") if path.suffix in (".csv", ".jsonl"))
