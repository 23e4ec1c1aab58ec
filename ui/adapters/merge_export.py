"""A version merged into its base, made by a process of its own and handed over as one zip.

The page's process reads none of it: the zip is written where Gradio serves and sweeps files.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from gradio.utils import get_upload_folder

from errors import AdapterError, BusyError
from settings import REPOSITORY, child_environment
from ui.html.tags import Html, bar, div, span
from ui.i18n import Words

REFUSED = 2
"""The exit code of a command that has said why in its last line."""


def followed(command: Sequence[str], home: Path, what: str) -> Iterator[str]:
    """Each line that the process prints. Raises `AdapterError`, beginning with `what`, where it fails.

    Closing the iterator ends the process, with all that it started.
    """
    child = subprocess.Popen(
        command, cwd=REPOSITORY, env=child_environment(GRAFT_HOME=str(home.absolute())), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    said = list[str]()
    listener = threading.Thread(target=lambda: said.extend(child.stderr or ()), daemon=True)
    listener.start()
    try:
        with suppress(OSError):
            # Where memory ends, this goes before the page does.
            Path(f"/proc/{child.pid}/oom_score_adj").write_text("1000", encoding="ascii")
        for line in child.stdout or ():
            yield line.strip()
        code = child.wait()
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        listener.join()
        for pipe in (child.stdout, child.stderr):
            if pipe:
                pipe.close()
    if code:
        told = said[-1].strip() if code == REFUSED and said else ""
        raise AdapterError(what, told or "Its process ended early; there may not be enough memory.")


COMMAND = (sys.executable, "-m", "training", "export")
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
        folder = Path(get_upload_folder()) / secrets.token_hex(16)
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
