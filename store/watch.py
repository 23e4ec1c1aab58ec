"""Notices within a second that files changed, by file events where they arrive and by looking where they do not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

log = logging.getLogger("graft")

EVERY_S = 0.5
"""How often it looks, whether or not an event came: network drives and some containers send none."""
DEPTH = 3
"""Levels below a watched folder that are looked at: names, their versions, and the files of each."""


class Watch:
    """Calls `changed` from a thread of its own when anything in `folders` is added, replaced or removed."""

    def __init__(self, folders: Sequence[Path], changed: Callable[[], None], every_s: float = EVERY_S) -> None:
        self._folders, self._changed, self._every = tuple(folders), changed, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="graft-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._seen = look(self._folders)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when the thread has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        for _ in self._ticks():
            found = look(self._folders)
            if found != self._seen:
                self._seen = found
                try:
                    self._changed()
                except Exception:
                    log.exception("after a change in %s", ", ".join(map(str, self._folders)))

    def _ticks(self) -> Iterator[None]:
        """A tick for each batch of file events and after every pause without one."""
        try:
            yield from self._events()
        except Exception as error:
            # Out of inotify watches, no library, a folder that vanished: looking alone is enough.
            log.info("file events are not available (%s); looking every %s s", error, self._every)
        while not self._stop.wait(self._every):
            yield None

    def _events(self) -> Iterator[None]:
        from watchfiles import watch  # noqa: PLC0415 - its absence must not stop the page

        pause = int(self._every * 1000)
        folders = [folder for folder in self._folders if folder.is_dir()]
        if len(folders) < len(self._folders):
            return
        for _ in watch(
            *folders, stop_event=self._stop, debounce=100, step=20, rust_timeout=pause, yield_on_timeout=True
        ):
            yield None


def look(folders: Sequence[Path]) -> Hashable:
    """What can be seen of the folders without opening a file: paths, sizes and times."""
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
