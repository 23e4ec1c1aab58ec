"""Adapter versions: published once, never changed, and the history of each tab's live version.

    home/adapters/<name>/<n>/   one version: a standard PEFT folder, its card and its manifest
    home/live/<tab>.json        the version that the tab answers with, and those before it

A version becomes visible when its finished folder is renamed into place. The file of live versions is replaced
atomically. The repository's `adapters/` has the same layout, for versions that ship with Graft; it is never written.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from errors import AdapterError, Text
from store import files, staging
from store.staging import MANIFEST

BASE = "base"
LIVE = "live"
NEWEST = "newest"
RESERVED = (BASE, LIVE, NEWEST)
"""Names that a request may give in place of a version's; no adapter can have them."""
CARD = "card.json"
WEIGHTS = "adapter_model.safetensors"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
HISTORY_LENGTH = 200
LAST = ".last"
"""File beside the versions of a name with the highest number ever given."""
MAX_RANK = 256
"""The highest LoRA rank that is trained or served."""


@dataclass(frozen=True)
class Version:
    """One published adapter."""

    name: str
    number: int
    path: Path
    manifest: Mapping[str, Any]

    @property
    def ref(self) -> str:
        """The reference by which people and requests name it: `name@7`."""
        return f"{self.name}@{self.number}"

    @property
    def plugin(self) -> str:
        """The tab that it was made for."""
        return str(self.manifest["plugin"])

    @property
    def labels(self) -> list[str]:
        """A classifier's labels in the order of its logits; empty for a version that answers with text."""
        return list(self.manifest.get("labels") or ())

    @cached_property
    def card(self) -> dict[str, Any]:
        """The before/after comparison that its run made; empty if there is none."""
        path = self.path / CARD
        return dict(files.read_json(path)) if path.exists() else {}

    def check_files(self) -> None:
        """Raise `AdapterError` unless every file has the size and hash in the manifest."""
        if changed := staging.find_changed(self.path, self.manifest):
            raise AdapterError(
                f"{self.ref} cannot be loaded.",
                f"Its file {changed} is missing, cut short or changed since it was published.",
                "Restore the folder from a copy, or train the version again.",
            )


def check_name(name: str) -> str:
    """Return `name` if it can name an adapter; raises `AdapterError`."""
    if not NAME.fullmatch(name) or name in RESERVED:
        raise AdapterError(
            f"{name!r} cannot name an adapter.",
            "A name has 1 to 40 of a-z, 0-9, - and _, and starts with a letter or digit.",
            "Choose another, for example tickets.",
        )
    return name


class AdapterStore:
    """The versions under `home` and, read-only, those that ship with the repository."""

    def __init__(self, home: Path, shipped: Path | None = None) -> None:
        self.root, self._live, self._live_lock = home / "adapters", home / "live", home / "live" / ".lock"
        self._roots = [self.root, *([shipped] if shipped else [])]
        self._live_folders = [self._live, *([shipped / LIVE] if shipped else [])]

    @property
    def watched(self) -> tuple[Path, ...]:
        """The folders to watch: a change in them may change answers."""
        return (self.root, self._live)

    def versions(self, plugin: str | None = None) -> list[Version]:
        """List the undamaged versions, of one tab or of all, newest first."""
        folders = [path.parent for root in self._roots for path in sorted(root.glob(f"*/*/{MANIFEST}"))]
        found = {version.ref: version for folder in folders if (version := _read(folder))}
        chosen = [version for version in found.values() if plugin in (None, version.plugin)]
        return sorted(chosen, key=lambda v: (v.manifest.get("created", ""), v.number), reverse=True)

    def get(self, ref: str) -> Version:
        """Return the version called `name@7`, or the newest one called `name`; raises `AdapterError`."""
        name, _, number = ref.partition("@")
        if NAME.fullmatch(name) and (not number or NUMBER.fullmatch(number)):
            for n in [int(number)] if number else sorted(self._numbers(name), reverse=True):
                for root in self._roots:
                    if version := _read(root / name / str(n)):
                        return version
        raise AdapterError(
            Text("There is no version {version}.", version=repr(ref)),
            Text("There are: {versions}.", versions=", ".join(v.ref for v in self.versions()) or "none yet"),
            "Choose one of these, or base for the model without an adapter.",
        )

    def get_for(self, plugin: str, ref: str) -> Version:
        """Return the version as `get` does; raises `AdapterError` if it is no version of that tab."""
        version = self.get(ref)
        if version.plugin != plugin:
            what = Text("{version} is not a version of {tab}.", version=version.ref, tab=plugin)
            raise AdapterError(what, Text("It was made for {tab}.", tab=version.plugin))
        return version

    def live(self, plugin: str) -> Version | None:
        """Return the version that the tab answers with; None is the base."""
        return next(self.candidates(plugin))

    def candidates(self, plugin: str) -> Iterator[Version | None]:
        """Yield the version that the tab should answer with, then the one before, and so on to the base (None).

        Missing versions are left out, so that a damaged folder never leaves a tab without an answer.
        """
        for ref in reversed(live_stack(self.history(plugin))):
            if ref == BASE:
                break
            with suppress(AdapterError):
                yield self.get(ref)
        yield None

    def history(self, plugin: str) -> list[dict[str, Any]]:
        """Return changes of a tab's live version, oldest first: version, at (Unix seconds), why, who, back, deleted.

        `back` is true for a roll back, `deleted` for a version that was removed. Old entries may have `version` alone.
        """
        for folder in self._live_folders:
            path = folder / f"{plugin}.json"
            if path.exists():
                return list(files.read_json(path))
        return []

    def promote(self, plugin: str, ref: str, why: str = "", who: str = "") -> None:
        """Make `ref` (or `base`) the live version; raises `AdapterError` if it is no version of that tab."""
        if ref != BASE:
            self.get_for(plugin, ref)
        with files.lock(self._live_lock):
            if live_stack(self.history(plugin))[-1:] != [ref]:  # else the next roll back would change nothing
                self._record(plugin, {"version": ref, "why": why, "who": who})

    def roll_back(self, plugin: str, why: str = "", who: str = "") -> str:
        """Return to the version that was live before; returns its name. Raises `AdapterError` if there was none."""
        with files.lock(self._live_lock):
            before = self.rollback_target(plugin)
            if before is None:
                raise AdapterError("There is nothing to roll back to.", f"{plugin} answers with its base.")
            self._record(plugin, {"version": before, "why": why, "who": who, "back": True})
        return before

    def rollback_target(self, plugin: str) -> str | None:
        """Return the version, or the base, that a roll back would make live; None when there is nothing to undo."""
        stack = live_stack(self.history(plugin))
        if not stack:
            return None
        present = {version.ref for version in self.versions(plugin)} | {BASE}
        return next((ref for ref in reversed(stack[:-1]) if ref in present), BASE)

    def delete(self, ref: str, why: str = "", who: str = "") -> None:
        """Remove a version for good; raises `AdapterError` if it is still needed, or came with Graft.

        Its number is not given again, and the history of its tab keeps who removed it, when and why.
        """
        version = self.get(ref)
        if version.path.parent.parent != self.root:
            raise AdapterError(f"{version.ref} cannot be deleted.", "It came with Graft.")
        with files.lock(self._live_lock):
            live = self.live(version.plugin)
            if live and live.ref == version.ref:
                raise _needed(version, f"{version.plugin} answers with it.")
            if self.rollback_target(version.plugin) == version.ref:
                raise _needed(version, f"A roll back of {version.plugin} would return to it.")
            aside = files.staging_name(self.root)  # one rename, so that no reader sees half a version
            aside.mkdir()
            try:
                version.path.rename(aside / "deleted")
                self._record(version.plugin, {"version": version.ref, "why": why, "who": who, "deleted": True})
            except BaseException:
                with suppress(FileNotFoundError):
                    (aside / "deleted").rename(version.path)
                aside.rmdir()  # fails, and so keeps the version, where it could not be put back
                raise
        shutil.rmtree(aside, ignore_errors=True)

    def _record(self, plugin: str, entry: Mapping[str, Any]) -> None:
        entries = [*self.history(plugin), {"at": time.time(), **entry}]
        files.write_json(self._live / f"{plugin}.json", _recent(entries))

    def staging(self) -> AbstractContextManager[Path]:
        """Return the context of a folder to build a version in, deleted at the end unless it was published."""
        return files.staging(self.root)

    def publish(self, folder: Path, name: str, facts: Mapping[str, Any]) -> Version:
        """Turn a finished staging folder into the next version of `name`, visible at once after one rename.

        `facts` become part of the manifest. Where another process took the number, the rename fails and is repeated.
        """
        parent = self.root / check_name(name)
        parent.mkdir(parents=True, exist_ok=True)
        contents = staging.describe_files(folder)
        while True:
            number = self._next_number(name)
            target = parent / str(number)
            manifest = {"format": 1, "name": name, "number": number, **facts, "files": contents}
            files.write_json(folder / MANIFEST, manifest)
            try:
                files.seal(folder, target)
                return Version(name, number, target, manifest)
            except OSError:
                if not target.exists():
                    raise

    def _next_number(self, name: str) -> int:
        """Return one above every number that `name` ever had, so that no number means two versions."""
        record = self.root / name / LAST
        last = int(record.read_text()) if record.exists() else 0
        number = max(last, *self._numbers(name), 0) + 1
        files.write_text(record, str(number))
        return number

    def _numbers(self, name: str) -> set[int]:
        folders = [path for root in self._roots for path in (root / name).glob("*")]
        return {int(path.name) for path in folders if NUMBER.fullmatch(path.name)}


def _needed(version: Version, why: str) -> AdapterError:
    return AdapterError(f"{version.ref} cannot be deleted.", why, "Make another version live first.")


def _recent(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Keep the last entries of each kind: many deletions must not push out the live version."""
    deleted = [bool(entry.get("deleted")) for entry in entries]
    return [
        entry for number, entry in enumerate(entries) if deleted[number + 1 :].count(deleted[number]) < HISTORY_LENGTH
    ]


def live_stack(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the versions made live and not rolled back since, oldest first; the last one is live.

    An entry of a roll back names its target: versions are popped until that one is on top, which also works where the
    beginning of the history was cut off.
    """
    stack: list[str] = []
    for entry in entries:
        if entry.get("deleted"):
            continue
        ref = str(entry["version"])
        if entry.get("back"):
            del stack[-1:]
            while stack and stack[-1] != ref:
                stack.pop()
            if stack or ref == BASE:
                continue
        stack.append(ref)
    return stack


def _read(folder: Path) -> Version | None:
    """Return the version in the folder `name/number`; None unless it is whole and of a tab."""
    if not (NAME.fullmatch(folder.parent.name) and NUMBER.fullmatch(folder.name)):
        return None
    try:
        return _parse(folder, frozenset(map(_stamp, os.scandir(folder))))
    except OSError:
        return None


def _stamp(entry: os.DirEntry[str]) -> tuple[str, int, int]:
    """Return name, size and modification time of a file; of one that is gone, the name alone."""
    with suppress(OSError):
        stat = entry.stat()
        return entry.name, stat.st_size, stat.st_mtime_ns
    return entry.name, 0, 0


@lru_cache(maxsize=1000)
def _parse(folder: Path, stamps: frozenset[tuple[str, int, int]]) -> Version:
    """Parse the manifest, which every request needs; `stamps` of the files in the folder are the key.

    Raises `FileNotFoundError`, which is not cached, unless it is a whole version of a tab.
    """
    manifest = staging.read_manifest(folder) or {}
    if not manifest.get("plugin"):
        raise FileNotFoundError(folder)
    return Version(folder.parent.name, int(folder.name), folder, manifest)
