"""A thread that polls folders twice a second for changed files.

Polling works on network drives and in containers, many of which send no file events.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

log = logging.getLogger("graft")

EVERY_S = 0.5
DEPTH = 3
"""Levels below a watched folder that are read: names, their versions, and the files of each."""


class Watch:
    """Calls `changed` from a thread of its own when anything in `folders` is added, replaced or removed."""

    def __init__(self, folders: Sequence[Path], changed: Callable[[], None], every_s: float = EVERY_S) -> None:
        self._folders, self._changed, self._every = tuple(folders), changed, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="graft-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._seen = snapshot(self._folders)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when the thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            now = snapshot(self._folders)
            if now != self._seen:
                self._seen = now
                try:
                    self._changed()
                except Exception:
                    log.exception("after a change in %s", ", ".join(map(str, self._folders)))


def snapshot(folders: Sequence[Path]) -> Hashable:
    """Return paths, sizes and times of everything in the folders, to be compared with another; opens no file."""
    return frozenset(entry for folder in folders for entry in _entries(folder, DEPTH))


def _entries(folder: Path, depth: int) -> Iterator[tuple[str, int, int]]:
    try:
        children = [child for child in folder.iterdir() if not child.name.startswith((".", "__pycache__"))]
    except OSError:
        return
    for child in children:
        try:
            stat = child.stat()
        except OSError:
            continue
        if child.is_dir():
            yield (str(child), 0, 0)
            if depth > 1:
                yield from _entries(child, depth - 1)
        else:
            yield (str(child), stat.st_size, stat.st_mtime_ns)
