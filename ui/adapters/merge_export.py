"""Merge a version into its base, in a child process, and offer the model as one zip.

The page does not read the zip, which the child writes into the folder whose files Gradio serves and deletes.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from errors import AdapterError, BusyError, GraftError
from settings import child_environment
from store import processes
from training.cli.transfer_commands import ONE_LINE
from ui.html.tags import Html, bar, div, span
from ui.i18n import Words
from ui.web.gradio_private import cache_folder

PHASES = ("base", "merge", "write", "pack")
"""Lines that the child prints."""
_ONE = threading.Lock()


def merged(say: Words, ref: str, home: Path) -> Iterator[tuple[Html, str | None]]:
    """Yield each phase as HTML, and at last the path of the zip; closing the iterator ends the child.

    One model is made at a time. Raises `GraftError`.
    """
    if not _ONE.acquire(blocking=False):
        raise BusyError("Another merged model is being made.", "Each needs as much memory as its base.", "Wait for it.")
    try:
        folder = cache_folder() / secrets.token_hex(16)
        folder.mkdir(parents=True)
        target = folder / f"{ref.replace('@', '-')}-merged.zip"
        yield step(say(f"merged.{PHASES[0]}", version=ref), PHASES, PHASES[0]), None
        for line in lines(["export", ref, str(target), "--merged"], home, "The merged model could not be made."):
            if (phase := line.strip()) in PHASES:
                yield step(say(f"merged.{phase}", version=ref), PHASES, phase), None
        yield Html(""), str(target)
    finally:
        _ONE.release()


def lines(arguments: Sequence[str], home: Path, refused: str) -> Iterator[str]:
    """Run `python -m training` and yield its lines; raises `AdapterError` that begins with `refused` where it fails."""
    died = AdapterError(refused, "Its process ended early; there may not be enough memory.")
    return processes.lines(
        processes.python("training", *arguments, ONE_LINE),
        lambda facts: AdapterError(refused, str(GraftError.from_dict(facts))),
        died,
        child_environment(GRAFT_HOME=str(home.absolute())),
    )


def step(words: str, phases: Sequence[str], phase: str) -> Html:
    """Show one of several phases as words and a bar."""
    return div("g-loading", span("", words), bar((phases.index(phase) + 0.5) / len(phases)))
