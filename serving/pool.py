"""The pool of base models: each loaded once, in the background, and shared by all tabs and versions that name it.

A request is answered by the base that its version was trained on: the tab's own, or another. `declare` returns at
once; `open` waits until the base is loaded, or raises the reason why it is not. No torch is imported here.

The base of a tab stays in memory until it is forgotten. One that only versions name stays while a request uses it or a
live version needs it; of the others at most one stays, for `IDLE_S` after its last use or until another is loaded.
"""

from __future__ import annotations

import gc
import importlib
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import AdapterError, BusyError, GraftError, ModelError, Text
from models.resolve import Model, ModelStore, Origins, short_name
from serving.lm import LM
from settings import Settings
from store.adapters import BASE, LIVE, AdapterStore, Version
from tasks import TabSpec

if TYPE_CHECKING:
    from serving.loaded import Loaded

log = logging.getLogger("graft")

WAIT_S = 60.0
"""Longest wait of a request for a base that is loading."""
IDLE_S = 300.0
"""Time after its last use for which a base that nothing needs stays in memory."""


@dataclass(frozen=True)
class Status:
    """Progress of a base: phase queued, download, convert, load, ready or failed; fraction 0..1 where known."""

    id: str
    phase: str = "queued"
    fraction: float | None = None
    error: str = ""


@dataclass
class Entry:
    """A base that is loaded or being loaded."""

    status: Status
    kept: bool
    """True if a tab names it."""
    future: Future[Any] = field(default_factory=Future)
    users: int = 0
    used: float = field(default_factory=time.monotonic)

    def report(self, phase: str, fraction: float | None) -> None:
        """Update the status of a base that is being loaded."""
        self.status = replace(self.status, phase=phase, fraction=fraction)

    @property
    def ready(self) -> bool:
        """True if the base is loaded."""
        return self.future.done() and not self.future.exception()


Load = Callable[[Entry], Any]
"""Loads a base, and reports its progress to the entry."""


class BaseModelCache:
    """The bases that are loaded or being loaded, by key. Thread-safe."""

    def __init__(self, live: Callable[[], Collection[str]]) -> None:
        """`live` returns the keys of the bases that live versions need."""
        self._live = live
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()

    def forget(self, key: str) -> None:
        """Drop a base; running requests keep theirs."""
        self._entries.pop(key, None)

    def status(self) -> list[Status]:
        """Return the status of each base, in the order in which they began to load."""
        return [entry.status for entry in [*self._entries.values()]]

    def loaded(self) -> list[Any]:
        """Return the bases that are loaded."""
        return [entry.future.result() for entry in [*self._entries.values()] if entry.ready]

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key, if there is one."""
        return self._entries.get(key)

    @contextmanager
    def hold(self, key: str, wait_s: float, load: Load | None = None, again: bool = True) -> Iterator[Any]:
        """Yield a base, and keep it in memory until the block ends; `load` and `again` as for `begin`.

        Raises the error of a failed load, or `BusyError` if loading takes longer than `wait_s` seconds.
        """
        entry = self.begin(key, load, again=again, users=1)
        try:
            try:
                error = entry.future.exception(wait_s)
            except TimeoutError:
                what = Text("{base} is still loading.", base=key)
                raise BusyError(what, "It is needed for this answer.", "Try again in a moment.") from None
            if error:
                # One error for every request: without its traceback, which would grow with each of them.
                raise error.with_traceback(None)
            yield entry.future.result()
        finally:
            with self._lock:
                entry.users -= 1
                entry.used = time.monotonic()

    def begin(self, key: str, load: Load | None, kept: bool = False, again: bool = True, users: int = 0) -> Entry:
        """Return the entry of a key; starts to load a base that is not loaded, or whose loading has failed if `again`.

        `kept`: whether a tab names it. `users` are added in the same step, so that the base is not dropped before.
        """
        with self._lock:
            entry = self._entries.get(key)
            if entry is None and load is None:
                raise ModelError(f"{key} is not loaded.", "No tab names it.")
            failed = entry and entry.future.done() and entry.future.exception()
            begun = load if entry is None or (failed and again) else None
            if entry is None or begun:
                entry = self._entries[key] = Entry(Status(key), bool(entry and entry.kept))
            entry.kept = entry.kept or kept
            entry.users += users
        if begun:
            if not entry.kept:
                self.let_go(0.0, but=key)
                threading.Thread(target=self._watch, args=(key,), name="graft-let-go", daemon=True).start()
            threading.Thread(target=_load, args=(key, entry, begun), name=f"graft-load-{key}", daemon=True).start()
        return entry

    def let_go(self, idle_s: float = IDLE_S, but: str = "") -> None:
        """Drop all bases but `but` that nothing has needed for `idle_s` seconds, and those that failed to load."""
        needed, now = {*self._live(), but}, time.monotonic()
        with self._lock:
            idle = [
                key
                for key, entry in self._entries.items()
                if not (entry.kept or entry.users or key in needed)
                and entry.future.done()
                and (not entry.ready or now - entry.used >= idle_s)
            ]
            for key in idle:
                del self._entries[key]
        if idle:
            log.info("let go of %s", ", ".join(idle))
            gc.collect()  # layers and their hooks refer to each other

    def _watch(self, key: str) -> None:
        """Drop idle bases from time to time, until this one is gone or a tab names it."""
        while getattr(self.find(key), "kept", True) is False:
            time.sleep(IDLE_S / 5)
            self.let_go()


def _load(key: str, entry: Entry, load: Load) -> None:
    try:
        loaded = load(entry)
    except BaseException as error:  # whatever ended it, nobody may wait for it for ever
        if not isinstance(error, GraftError):
            log.exception("loading %s", key)
            error = ModelError(f"{key} could not be loaded.", f"{type(error).__name__}.", "The log has the details.")
        entry.status = Status(key, "failed", error=str(error))
        entry.future.set_exception(error)
    else:
        entry.status, entry.used = Status(key, "ready", 1.0), time.monotonic()
        entry.future.set_result(loaded)


class Pool:
    """Gives each request its base and its version. Thread-safe."""

    def __init__(self, settings: Settings, models: ModelStore, adapters: AdapterStore) -> None:
        self.adapters = adapters
        self._settings, self._models = settings, models
        self._origins = Origins(settings.home, settings.models.values())
        self._tabs: dict[str, TabSpec] = {}
        self._keys: dict[tuple[str, str, str], str] = {}
        """Keys of the bases of versions, by `_version_facts`."""
        self._answered: dict[str, Version | None] = {}
        """The live version that answered last, by tab."""
        self._refused: dict[str, Mapping[str, Any]] = {}
        """Manifests of the newest versions that could not be loaded ahead, by reference."""
        self._entries = BaseModelCache(self._live_keys)
        self._importing, self._loading = threading.Lock(), threading.Lock()

    def declare(self, key: str, load: Callable[[], Any] | None = None) -> None:
        """Start to load a base by its id, or by `load`, unless it is loaded or being loaded."""
        begun = partial(self._load_own, load) if load else partial(self._load_base, key, False)
        self._entries.begin(key, begun, kept=True)

    def forget(self, key: str) -> None:
        """Drop a base, so that the next `declare` loads it again; running requests keep theirs."""
        self._entries.forget(key)

    def status(self) -> list[Status]:
        """Return the status of each base, in the order of declaration."""
        return self._entries.status()

    @contextmanager
    def open(self, spec: TabSpec, adapter: str = LIVE, lender: Version | None = None) -> Iterator[LM]:
        """Yield an `LM` of one version and its base, both kept in memory until the block ends.

        `adapter` is live, base (the tab's own), `name` or `name@7`. If the live version is refused or its base is still
        loading, the version that was live before answers, and a note says so. `lender`: as for `LM`. Raises
        `AdapterError`, `ModelError` or `BusyError`.
        """
        self._tabs[spec.name] = spec
        live = adapter in ("", LIVE)
        with ExitStack() as pinned:
            notes: list[str] = []
            for version, note in self._candidates(spec, adapter):
                try:
                    lm = self._bind(spec, version, pinned, not live, lender)
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
        """Return the `Loaded` base of a key, or the module that a plugin's own `load()` returned."""
        with self._entries.hold(key, WAIT_S) as loaded:
            return loaded

    def check(self, spec: TabSpec, adapter: str) -> None:
        """Load a version and its base as a request would, before it is promoted; raises `GraftError`."""
        with self.open(spec, adapter):
            pass

    def release(self, ref: str) -> None:
        """Evict a version from every base's memory; raises `AdapterError` while a request is answered with it."""
        if not all([loaded.base.slots.drop(ref) for loaded in self._loaded()]):
            raise AdapterError(f"{ref} is in use.", "A request is being answered with it.", "Try again in a moment.")

    def warm(self, spec: TabSpec) -> None:
        """Load the tab's live version into its slot, and its newest one, so that promoting it takes no time.

        Also starts to load the live version's base, and drops bases that nothing needs.
        """
        self._tabs[spec.name] = spec
        own = self._entries.find(spec.model)
        if own and own.future.done():
            key = self._key(spec, self.adapters.live(spec.name))
            if (own if key == spec.model else self._begin(key, again=True)).ready:
                self.check(spec, LIVE)
            self._preload(spec)
        self._entries.let_go()

    def _preload(self, spec: TabSpec) -> None:
        """Load the tab's newest version into its slot if its base is the tab's own; tries a refused one once."""
        newest = next(iter(self.adapters.versions(spec.name)), None)
        if newest and self._is_own(spec, newest) and self._refused.get(newest.ref) != newest.manifest:
            try:
                self.check(spec, newest.ref)
            except AdapterError:
                self._refused[newest.ref] = newest.manifest
            except GraftError as error:
                log.info("%s is not loaded ahead: %s", newest.ref, error)

    def _candidates(self, spec: TabSpec, adapter: str) -> Iterator[tuple[Version | None, str]]:
        """Yield the version that `adapter` names, None for the base, and for live its fallbacks; each with a note.

        While the base of the live version is loading, the version that answered before comes first.
        """
        if adapter not in ("", LIVE):
            yield None if adapter == BASE else self.adapters.get(adapter), ""
            return
        found = list(self.adapters.candidates(spec.name))
        first = found[0]
        if first and spec.name in self._answered and self._is_loading(spec, first):
            before = self._answered[spec.name]
            template = "{version} is live, but its base {base} is still loading; until then {name} answers."
            name = before.ref if before else BASE
            yield before, Text(template, version=first.ref, base=short_name(first), name=name)
        yield from ((version, "") for version in found)

    def _is_loading(self, spec: TabSpec, version: Version) -> bool:
        """Return whether a version's base is not the tab's own and is still loading; starts to load it."""
        with suppress(GraftError):
            key = self._key(spec, version)
            return key != spec.model and not self._begin(key, again=False).future.done()
        return False

    def _is_own(self, spec: TabSpec, version: Version | None) -> bool:
        """Return whether a version's base is the tab's own."""
        with suppress(GraftError):
            return self._key(spec, version) == spec.model
        return False

    def _bind(
        self, spec: TabSpec, version: Version | None, pinned: ExitStack, again: bool, lender: Version | None
    ) -> LM:
        """Return an `LM`, pinning its base and version in `pinned`; `again` as for `BaseModelCache.begin`."""
        key = self._key(spec, version)
        load = None if key == spec.model else partial(self._load_base, key, True)
        loaded: Loaded = pinned.enter_context(self._entries.hold(key, WAIT_S, load, again))
        slot = pinned.enter_context(loaded.base.slots.pin(version))
        base = spec.model if key == spec.model or version is None else str(version.manifest["base"]["id"])
        return LM(self._settings, spec, loaded, slot, base, lambda: self.own(spec.model).classifier, lender)

    def _begin(self, key: str, again: bool) -> Entry:
        return self._entries.begin(key, partial(self._load_base, key, True), again=again)

    def _key(self, spec: TabSpec, version: Version | None) -> str:
        """Return the key of a version's base; raises `AdapterError` if it cannot be found."""
        if version is None:
            return spec.model
        facts = _version_facts(spec, version)
        if facts not in self._keys:
            own: Model | None = None
            with suppress(ModelError):
                own = self.own(spec.model).base.model
            self._keys[facts] = self._origins.id_of(version, spec.model, own)
        return self._keys[facts]

    def _live_keys(self) -> set[str]:
        """Return the keys of the bases of live versions, and of the versions that answer while these are loading."""
        wanted = [(spec, self.adapters.live(name), self._answered.get(name)) for name, spec in [*self._tabs.items()]]
        facts = [_version_facts(spec, version) for spec, *both in wanted for version in both if version]
        return {self._keys[known] for known in facts if known in self._keys}

    def _loaded(self) -> list[Loaded]:
        """Return the bases in memory, without the modules that plugins load themselves."""
        return [loaded for loaded in self._entries.loaded() if type(loaded).__module__ == "serving.loaded"]

    def _import(self, name: str) -> Any:  # noqa: ANN401 - a module
        """Import a module off the main path: torch and transformers take seconds, and the page must not wait for them.

        One at a time, because two threads importing transformers can meet in its lazy modules.
        """
        with self._importing:
            return importlib.import_module(name)

    def _load_own(self, load: Callable[[], Any], entry: Entry) -> Any:  # noqa: ANN401 - whatever a plugin builds
        """Build a plugin's own module; with this import its calls of `from_pretrained` take turns with the bases'."""
        self._import("models.transformers_private")
        return load()

    def _load_base(self, key: str, of_a_version: bool, entry: Entry) -> Any:  # noqa: ANN401
        folder = not of_a_version or Path(key).is_absolute()
        model = (self._models.resolve if folder else self._models.resolve_hub_id)(key, entry.report)
        entry.report("load", None)
        with self._loading:
            same = (loaded for loaded in self._loaded() if loaded.base.model.path == model.path)
            if found := next(same, None):
                return found  # under another name
            module = self._import("serving.loaded")
            return module.Loaded(model, self._settings.quantize, self._settings.precision, beside=of_a_version)


def _version_facts(spec: TabSpec, version: Version) -> tuple[str, str, str]:
    """Return what the base of a version depends on: the tab's own base, the version, and the base in its manifest."""
    return spec.model, version.ref, str(version.manifest.get("base"))
