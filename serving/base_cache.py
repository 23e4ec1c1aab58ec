"""Resident bases by their keys: each loaded once, in the background, and held as long as something needs it.

What a tab names stays until it is forgotten. What only versions name stays while a request is answered by it or a live
version was made for it. Of the others at most one stays, for `IDLE_S` after its last use and only until a further base
has to be loaded: so memory holds the tabs' own bases, those of live versions, those in use, and one. No torch here.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from errors import BusyError, GraftError, ModelError, Text

log = logging.getLogger("graft")

IDLE_S = 300.0
"""How long a base stays that nothing needs any more."""


@dataclass(frozen=True)
class Status:
    """How far a base is: phase queued, download, convert, load, ready or failed; fraction 0..1 where known."""

    id: str
    phase: str = "queued"
    fraction: float | None = None
    error: str = ""


@dataclass
class Entry:
    """One base, whether or not it is there yet."""

    status: Status
    kept: bool
    """Whether a tab names it."""
    done: threading.Event = field(default_factory=threading.Event)
    loaded: Any = None
    error: GraftError | None = None
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    def tell(self, phase: str, fraction: float | None) -> None:
        """Note how far loading is."""
        self.status = replace(self.status, phase=phase, fraction=fraction)

    @property
    def ready(self) -> bool:
        """Whether it can be used at once."""
        return self.done.is_set() and self.error is None


Load = Callable[[Entry], Any]
"""Builds what an entry holds, telling it how far that is."""


class Bases:
    """Every base that is in memory or on its way there. Thread-safe."""

    def __init__(self, live: Callable[[], Collection[str]]) -> None:
        """`live` gives the keys of the bases that live versions were made for."""
        self._live = live
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._tended = False

    def __getitem__(self, key: str) -> Entry:
        return self._entries[key]

    def begin(self, key: str, load: Load, kept: bool, again: bool = True) -> Entry:
        """Begin to load what `load` builds, unless that has been done; one that failed only if `again`."""
        return self._take(key, load, kept, again, 0)

    def forget(self, key: str) -> None:
        """Drop an entry; running requests keep what it held."""
        with self._lock:
            self._entries.pop(key, None)

    def status(self) -> list[Status]:
        """How far each is, in the order in which they began."""
        with self._lock:
            return [entry.status for entry in self._entries.values()]

    def loaded(self) -> list[Any]:
        """What is in memory."""
        with self._lock:
            return [entry.loaded for entry in self._entries.values() if entry.ready]

    def find(self, key: str) -> Entry | None:
        """The entry of a key, if there is one."""
        with self._lock:
            return self._entries.get(key)

    @contextmanager
    def hold(self, key: str, wait_s: float, load: Load | None = None, again: bool = True) -> Iterator[Any]:
        """What is loaded under a key, which stays in memory until the block ends; by `load`, if it is not there.

        Raises what its loading raised, or `BusyError` when it takes longer than `wait_s`.
        """
        entry = self._take(key, load, False, again, 1)
        try:
            yield _waited(key, entry, wait_s)
        finally:
            with self._lock:
                entry.users -= 1
                entry.used = time.monotonic()

    def _take(self, key: str, load: Load | None, kept: bool, again: bool, users: int) -> Entry:
        """The entry of a key with so many `users` more, begun if need be: at once, so that none is let go between."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None and load is None:
                raise ModelError(f"{key} is not loaded.", "No tab names it.")
            begun = load if entry is None or (entry.error and again) else None
            if entry is None or begun:
                entry = self._entries[key] = Entry(Status(key), bool(entry and entry.kept))
            entry.kept = entry.kept or kept
            entry.users += users
        if begun:
            if not entry.kept:
                self.let_go(0.0, but=key)
                self._tend()
            threading.Thread(target=_load, args=(key, entry, begun), name=f"graft-load-{key}", daemon=True).start()
        return entry

    def let_go(self, idle_s: float = IDLE_S, but: str = "") -> None:
        """Let go of what nothing has needed for `idle_s`, and at once of what failed; `but` one key."""
        live, now = {*self._live(), but}, time.monotonic()
        with self._lock:
            idle = [
                key
                for key, entry in self._entries.items()
                if entry.done.is_set() and not entry.kept and not entry.users and key not in live
                and (entry.error or now - entry.used >= idle_s)
            ]  # fmt: skip
            for key in idle:
                del self._entries[key]
        if idle:
            log.info("let go of %s", ", ".join(idle))
            gc.collect()  # layers and their hooks refer to each other

    def _tend(self) -> None:
        """A thread that lets go in time, as long as there is anything that may go."""
        with self._lock:
            if self._tended:
                return
            self._tended = True
        threading.Thread(target=self._look_after, name="graft-let-go", daemon=True).start()

    def _look_after(self) -> None:
        while True:
            time.sleep(IDLE_S / 5)
            self.let_go()
            with self._lock:
                if all(entry.kept for entry in self._entries.values()):
                    self._tended = False
                    return


def _waited(key: str, entry: Entry, wait_s: float) -> Any:  # noqa: ANN401
    if not entry.done.wait(wait_s):
        raise BusyError(
            Text("{base} is still loading.", base=key), "It is needed for this answer.", "Try again in a moment."
        )
    if entry.error:
        # One error for every request: without its traceback, which would grow with each of them.
        raise entry.error.with_traceback(None)
    return entry.loaded


def _load(key: str, entry: Entry, load: Load) -> None:
    try:
        entry.loaded = load(entry)
        entry.status = Status(key, "ready", 1.0)
    except BaseException as error:  # whatever ended it, nobody may wait for it for ever
        if not isinstance(error, GraftError):
            log.exception("loading %s", key)
            error = ModelError(f"{key} could not be loaded.", f"{type(error).__name__}.", "The log has the details.")
        entry.error = error
        entry.status = Status(key, "failed", error=str(error))
    entry.used = time.monotonic()
    entry.done.set()
