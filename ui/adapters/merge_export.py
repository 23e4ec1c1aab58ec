"""A version merged into its base, made by a process of its own and handed over as one zip.

The page's process reads none of it: the zip is written where Gradio serves and sweeps files.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from errors import AdapterError, BusyError, GraftError
from settings import child_environment
from store import processes
from training.cli.transfer_commands import ONE_LINE
from ui.html.tags import Html, bar, div, span
from ui.i18n import Words
from ui.web.gradio_private import cache_folder


def followed(command: Sequence[str], home: Path, what: str) -> Iterator[str]:
    """Yield each line that the command prints; raises `AdapterError`, beginning with `what`, where it fails.

    Closing the iterator ends the process, with all that it started.
    """
    died = AdapterError(what, "Its process ended early; there may not be enough memory.")
    environment = child_environment(GRAFT_HOME=str(home.absolute()))

    def refused(facts: Mapping[str, str]) -> GraftError:
        return AdapterError(what, str(GraftError.from_dict(facts)))

    for line in processes.lines(command, refused, lambda: died, environment):
        yield line.strip()


COMMAND = processes.python("training", "export", ONE_LINE)
PHASES = ("base", "merge", "write", "pack")
"""What the process says of itself, a line each."""
_ONE = threading.Lock()


def merged(say: Words, ref: str, home: Path) -> Iterator[tuple[Html, str | None]]:
    """Each step on the way, and at last the path of the zip; one at a time. Raises `GraftError`.

    A reader that goes away ends the process.
    """
    if not _ONE.acquire(blocking=False):
        raise BusyError("Another merged model is being made.", "Each needs as much memory as its base.", "Wait for it.")
    try:
        folder = cache_folder() / secrets.token_hex(16)
        folder.mkdir(parents=True)
        target = folder / f"{ref.replace('@', '-')}-merged.zip"
        yield step(say, ref, PHASES[0]), None
        for phase in followed([*COMMAND, ref, str(target), "--merged"], home, "The merged model could not be made."):
            if phase in PHASES:
                yield step(say, ref, phase), None
        yield Html(""), str(target)
    finally:
        _ONE.release()


def step(say: Words, ref: str, phase: str) -> Html:
    """How far it is."""
    share = (PHASES.index(phase) + 0.5) / len(PHASES)
    return div("g-loading", span("", say(f"merged.{phase}", version=ref)), bar(share))
