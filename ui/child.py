"""A command of ours in a process of its own, followed by the page line by line.

What needs much memory, or opens what somebody handed over, does so there, and where memory ends it goes first.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from errors import AdapterError
from settings import REPOSITORY, child_environment

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
