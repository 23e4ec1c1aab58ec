"""The pool of resident bases: each loaded once, in the background, and shared by every tab and version that names it.

A version decides its base: it is answered by the one that it was made for, be that the tab's own or another. What is
kept in memory, and how long, is said in `serving/base_cache.py`. No torch is imported here. `declare` returns at once;
`open` answers as soon as the base is there, or says why not.
"""

from __future__ import annotations

import importlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import AdapterError, GraftError, ModelError
from models.resolve import Model, ModelStore, Origins, short_name
from serving.base_cache import Bases, Entry, Status
from serving.lm import LM
from settings import Settings
from store.adapters import BASE, LIVE, AdapterStore, Version
from tasks import TabSpec

if TYPE_CHECKING:
    from serving.loaded import Loaded

__all__ = ["Pool", "Status"]

log = logging.getLogger("graft")

WAIT_S = 60.0
"""How long a request waits for a base that is still loading."""


class Pool:
    """Every base that the tabs and their versions name. Thread-safe."""

    def __init__(self, settings: Settings, models: ModelStore, adapters: AdapterStore) -> None:
        self.adapters = adapters
        self._settings, self._models = settings, models
        self._origins = Origins(settings.home, settings.models.values())
        self._tabs: dict[str, TabSpec] = {}
        self._keys: dict[tuple[str, str, str], str] = {}
        self._answered: dict[str, Version | None] = {}
        """What each tab's live version was when it last could be had."""
        self._refused: dict[str, Mapping[str, Any]] = {}
        """Newest versions that could not be loaded ahead, and their manifests."""
        self._entries = Bases(self._live_keys)
        self._one_at_a_time = threading.Lock()

    def declare(self, key: str, load: Callable[[], Any] | None = None) -> None:
        """Begin to load a base by its id, or whatever `load` builds, unless that has been done; a failed one again."""
        self._entries.begin(key, lambda entry: load() if load else self._load_base(key, entry), kept=True)

    def forget(self, key: str) -> None:
        """Drop what was loaded under `key`, so that the next `declare` loads it anew; running requests keep theirs."""
        self._entries.forget(key)

    def status(self) -> list[Status]:
        """How far each base is, in the order of declaration."""
        return self._entries.status()

    @contextmanager
    def open(self, spec: TabSpec, adapter: str = LIVE) -> Iterator[LM]:
        """An `lm` bound to one version and the base it was made for, which stays what it is until the block ends.

        `adapter` is live, base (the tab's own), `name` or `name@7`. While the base of a new live version is still
        loading, what was live before goes on answering; where the live version is refused, too. The notes say so.
        Raises `AdapterError`, `ModelError` or `BusyError`.
        """
        self._tabs[spec.name] = spec
        live = adapter in ("", LIVE)
        with ExitStack() as pinned:
            notes: list[str] = []
            for version, note in self._candidates(spec, adapter):
                try:
                    lm = self._bound(spec, version, pinned, again=not live)
                    notes += [note] if note else []
                    break
                except GraftError as error:
                    refused = isinstance(error, AdapterError) or not self._is_own(spec, version)
                    if not live or version is None or not refused:
                        raise
                    notes.append(f"{error.what} {error.why}")
            if live and not notes:
                self._answered[spec.name] = version
            lm.notes += notes
            yield lm

    def own(self, key: str) -> Any:  # noqa: ANN401 - whatever a plugin's load() built
        """What a plugin's own `load()` returned."""
        return self._wait(key)

    def check(self, spec: TabSpec, adapter: str) -> None:
        """Load a version and its base as a request would, before it is promoted; raises `GraftError`."""
        with self.open(spec, adapter):
            pass

    def release(self, ref: str) -> None:
        """Take a version out of every base's memory; raises `AdapterError` while a request is answered with it."""
        # What a plugin brings itself holds no versions.
        residents = [loaded.resident for loaded in self._entries.loaded() if hasattr(loaded, "resident")]
        if not all([resident.slots.drop(ref) for resident in residents]):
            raise AdapterError(f"{ref} is in use.", "A request is being answered with it.", "Try again in a moment.")

    def warm(self, spec: TabSpec) -> None:
        """Bring the tab's live version into its slot, so that the next request finds it there, and its newest one too.

        So promoting what was just published costs nothing. Where the live version's base is another than the tab's,
        begin to load that; and let go of what nothing needs any more.
        """
        self._tabs[spec.name] = spec
        own = self._entries.find(spec.model)
        if own and own.done.is_set():
            key = self._key(spec, self.adapters.live(spec.name))
            if (own if key == spec.model else self._asked(key, again=True)).ready:
                with self.open(spec):
                    pass
            self._preload(spec)
        self._entries.let_go()

    def _preload(self, spec: TabSpec) -> None:
        """Bring the tab's newest version into its slot if its base is the tab's own.

        One that is refused is not tried again; whoever asks for it is told why.
        """
        newest = next(iter(self.adapters.versions(spec.name)), None)
        if newest and self._is_own(spec, newest) and self._refused.get(newest.ref) != newest.manifest:
            try:
                with self.open(spec, newest.ref):
                    pass
            except AdapterError:
                self._refused[newest.ref] = newest.manifest
            except GraftError as error:
                log.info("%s is not loaded ahead: %s", newest.ref, error)

    def _candidates(self, spec: TabSpec, adapter: str) -> Iterator[tuple[Version | None, str]]:
        """What a request's `adapter` means now, and for live what to fall back to; None is the base. Each with a note.

        A live version whose base is on its way comes behind what has been answering in this process, if anything has.
        """
        if adapter not in ("", LIVE):
            yield None if adapter == BASE else self.adapters.get(adapter), ""
            return
        found = list(self.adapters.candidates(spec.name))
        first = found[0]
        if first and spec.name in self._answered and self._is_on_its_way(spec, first):
            before = self._answered[spec.name]
            name = before.ref if before else BASE
            base = short_name(first)
            yield before, f"{first.ref} is live, but its base {base} is still loading; until then {name} answers."
        yield from ((version, "") for version in found)

    def _is_on_its_way(self, spec: TabSpec, version: Version) -> bool:
        with suppress(GraftError):
            key = self._key(spec, version)
            return key != spec.model and not self._asked(key, again=False).done.is_set()
        return False

    def _is_own(self, spec: TabSpec, version: Version | None) -> bool:
        with suppress(GraftError):
            return self._key(spec, version) == spec.model
        return False

    def _bound(self, spec: TabSpec, version: Version | None, pinned: ExitStack, again: bool) -> LM:
        """An LM of a version, which `pinned` holds. `again`: whether a base that failed is to be tried once more."""
        key = self._key(spec, version)
        load = None if key == spec.model else self._loading(key)
        loaded: Loaded = pinned.enter_context(self._entries.hold(key, WAIT_S, load, again))
        slot = pinned.enter_context(loaded.resident.pin(version))
        base = spec.model if key == spec.model or version is None else str(version.manifest["base"]["id"])
        return LM(self._settings, spec, slot, loaded.labels, loaded.text, base, lambda: self._wait(spec.model).labels)

    def _asked(self, key: str, again: bool) -> Entry:
        """Begin to load the base of a version, unless that has been done; how far it is."""
        return self._entries.begin(key, self._loading(key), kept=False, again=again)

    def _loading(self, key: str) -> Callable[[Entry], Any]:
        return lambda entry: self._load_base(key, entry, of_a_version=True)

    def _key(self, spec: TabSpec, version: Version | None) -> str:
        """The key of the base that a version was made for; raises `AdapterError` where none can be found."""
        if version is None:
            return spec.model
        known = _stated(spec, version)
        if known not in self._keys:
            own: Model | None = None
            with suppress(ModelError):
                own = self._wait(spec.model).resident.model
            self._keys[known] = self._origins.id_of(version, spec.model, own)
        return self._keys[known]

    def _live_keys(self) -> set[str]:
        """The keys of the bases that live versions need, and those that answer until these are there."""
        wanted = [(spec, self.adapters.live(name), self._answered.get(name)) for name, spec in [*self._tabs.items()]]
        stated = [_stated(spec, version) for spec, *both in wanted for version in both if version]
        return {self._keys[known] for known in stated if known in self._keys}

    def _wait(self, key: str) -> Any:  # noqa: ANN401
        with self._entries.hold(key, WAIT_S) as loaded:
            return loaded

    def _load_base(self, key: str, entry: Entry, of_a_version: bool = False) -> Any:  # noqa: ANN401
        folder = not of_a_version or Path(key).is_absolute()
        model = (self._models.resolve if folder else self._models.named)(key, entry.tell)
        entry.tell("load", None)
        # Imported here, off the main path: torch and transformers take seconds, and the page must not wait for them.
        # One at a time, because two threads importing transformers can meet in its lazy modules.
        with self._one_at_a_time:
            same = (loaded for loaded in self._entries.loaded() if hasattr(loaded, "resident"))
            if found := next((loaded for loaded in same if loaded.resident.model.path == model.path), None):
                return found  # under another name
            module = importlib.import_module("serving.loaded")
            return module.Loaded(model, self._settings.quantize, self._settings.precision, beside=of_a_version)


def _stated(spec: TabSpec, version: Version) -> tuple[str, str, str]:
    """What decides a version's base: the tab's own, and what its manifest says."""
    return spec.model, version.ref, str(version.manifest.get("base"))
