"""The pool of resident bases: each loaded once, in the background, and shared by every tab that names it.

No torch is imported here. `declare` returns at once; `open` answers as soon as the base is there, or says why not.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from errors import AdapterError, BusyError, GraftError, ModelError
from serving.lm import LM
from settings import Settings
from store.adapters import BASE, LIVE, AdapterStore, Version
from store.models import ModelStore
from tasks import TabSpec

if TYPE_CHECKING:
    from serving.loaded import Loaded

log = logging.getLogger("graft")

WAIT_S = 60.0
"""How long a request waits for a base that is still loading."""


@dataclass(frozen=True)
class Status:
    """How far a base is: phase queued, download, convert, load, ready or failed; fraction 0..1 where known."""

    id: str
    phase: str = "queued"
    fraction: float | None = None
    error: str = ""


@dataclass
class _Entry:
    status: Status
    done: threading.Event = field(default_factory=threading.Event)
    loaded: Any = None
    error: GraftError | None = None


class Pool:
    """Every base that the tabs name. Thread-safe."""

    def __init__(self, settings: Settings, models: ModelStore, adapters: AdapterStore) -> None:
        self.adapters = adapters
        self._settings, self._models = settings, models
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()
        self._one_at_a_time = threading.Lock()

    def declare(self, key: str, load: Callable[[], Any] | None = None) -> None:
        """Begin to load a base by its id, or whatever `load` builds, unless that has been done; a failed one again."""
        with self._lock:
            entry = self._entries.get(key)
            if entry and not entry.error:
                return
            self._entries[key] = _Entry(Status(key))
        threading.Thread(target=self._load, args=(key, load), name=f"graft-load-{key}", daemon=True).start()

    def forget(self, key: str) -> None:
        """Drop what was loaded under `key`, so that the next `declare` loads it anew; running requests keep theirs."""
        with self._lock:
            self._entries.pop(key, None)

    def status(self) -> list[Status]:
        """How far each base is, in the order of declaration."""
        with self._lock:
            return [entry.status for entry in self._entries.values()]

    @contextmanager
    def open(self, spec: TabSpec, adapter: str = LIVE) -> Iterator[LM]:
        """An `lm` bound to the tab's base and to one version, which stays what it is until the block ends.

        `adapter` is live, base, `name` or `name@7`. Where the live version is refused, what was live before it answers,
        and the notes say so. Raises `AdapterError`, `ModelError` or `BusyError`.
        """
        loaded: Loaded = self._wait(spec.model)
        with ExitStack() as pinned:
            refused: list[str] = []
            for version in self._candidates(spec, adapter):
                try:
                    slot = pinned.enter_context(loaded.resident.pin(version))
                    break
                except AdapterError as error:
                    if adapter not in ("", LIVE):
                        raise
                    refused.append(f"{error.what} {error.why}")
            lm = LM(spec, slot, loaded.labels, loaded.text)
            lm.notes += refused
            yield lm

    def own(self, key: str) -> Any:  # noqa: ANN401 - whatever a plugin's load() built
        """What a plugin's own `load()` returned."""
        return self._wait(key)

    def check(self, spec: TabSpec, adapter: str) -> None:
        """Load a version as a request would, before it is promoted; raises `AdapterError`."""
        with self.open(spec, adapter):
            pass

    def release(self, ref: str) -> None:
        """Take a version out of every base's memory; raises `AdapterError` while a request is answered with it."""
        with self._lock:
            ready = [entry.loaded for entry in self._entries.values() if entry.done.is_set() and not entry.error]
        # What a plugin brings itself holds no versions.
        residents = [loaded.resident for loaded in ready if hasattr(loaded, "resident")]
        if not all([resident.slots.drop(ref) for resident in residents]):
            raise AdapterError(f"{ref} is in use.", "A request is being answered with it.", "Try again in a moment.")

    def warm(self, spec: TabSpec) -> None:
        """Bring the tab's live version into its slot now, so that the next request finds it there."""
        with self._lock:
            entry = self._entries.get(spec.model)
        if entry and entry.done.is_set() and not entry.error:
            with self.open(spec):
                pass

    def _candidates(self, spec: TabSpec, adapter: str) -> Iterator[Version | None]:
        """What a request's `adapter` means now, and for live what to fall back to; None is the base."""
        if adapter in ("", LIVE):
            yield from self.adapters.candidates(spec.name)
        else:
            yield None if adapter == BASE else self.adapters.get(adapter)

    def _wait(self, key: str) -> Any:  # noqa: ANN401
        with self._lock:
            entry = self._entries.get(key)
        if entry is None:
            raise ModelError(f"{key} is not loaded.", "No tab names it.")
        if not entry.done.wait(WAIT_S):
            raise BusyError(f"{key} is still loading.", "It is needed for this answer.", "Try again in a moment.")
        if entry.error:
            # One error for every request: without its traceback, which would grow with each of them.
            raise entry.error.with_traceback(None)
        return entry.loaded

    def _load(self, key: str, load: Callable[[], Any] | None) -> None:
        entry = self._entries[key]
        try:
            entry.loaded = load() if load else self._load_base(key, entry)
            entry.status = Status(key, "ready", 1.0)
        except BaseException as error:  # whatever ended it, nobody may wait for it for ever
            if not isinstance(error, GraftError):
                log.exception("loading %s", key)
                error = ModelError(
                    f"{key} could not be loaded.", f"{type(error).__name__}.", "The log has the details."
                )
            entry.error = error
            entry.status = Status(key, "failed", error=str(error))
        entry.done.set()

    def _load_base(self, key: str, entry: _Entry) -> Any:  # noqa: ANN401
        def progress(phase: str, fraction: float | None) -> None:
            entry.status = replace(entry.status, phase=phase, fraction=fraction)

        model = self._models.resolve(key, progress)
        progress("load", None)
        # Imported here, off the main path: torch and transformers take seconds, and the page must not wait for them.
        # One at a time, because two threads importing transformers can meet in its lazy modules.
        with self._one_at_a_time:
            module = importlib.import_module("serving.loaded")
            return module.Loaded(model, self._settings.quantize)
