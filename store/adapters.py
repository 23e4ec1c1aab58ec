"""Adapter versions: published once, immutable for ever, and one live pointer for each tab.

    home/adapters/<name>/<n>/   one version: a standard PEFT folder, our card, and the manifest that makes it exist
    home/live/<tab>.json        which version the tab answers with, and what it answered with before

A version is visible only once its folder, manifest included, was renamed into place; it is never written again. The
pointer is one small file, replaced atomically, so that every process that can read it agrees. The same layout inside
the repository's `adapters/` holds the versions that ship with Graft; they are read, never written.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from errors import AdapterError, Text
from store import files

BASE = "base"
LIVE = "live"
NEWEST = "newest"
RESERVED = (BASE, LIVE, NEWEST)
"""Words that stand for a version, which changes."""
MANIFEST = "manifest.json"
CARD = "card.json"
WEIGHTS = "adapter_model.safetensors"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
NUMBER = re.compile(r"[1-9][0-9]{0,8}")
HISTORY_LENGTH = 200
LAST = ".last"
"""Beside the versions of a name: the highest number that was given out."""
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
        """How people and requests name it: `name@7`."""
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
        """The before/after comparison made by the run; empty where there is none."""
        path = self.path / CARD
        return dict(files.read_json(path)) if path.exists() else {}

    def check_files(self) -> None:
        """Compare every file with the manifest's sizes and hashes; raises `AdapterError` at the first difference."""
        for file, facts in self.manifest["files"].items():
            path = self.path / file
            if not path.is_file() or path.stat().st_size != facts["size"] or files.sha256(path) != facts["sha256"]:
                raise AdapterError(
                    f"{self.ref} cannot be loaded.",
                    f"Its file {file} is missing, cut short or changed since it was published.",
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
    """The versions under `home` and those that ship with the repository."""

    def __init__(self, home: Path, shipped: Path | None = None) -> None:
        self.root, self._live = home / "adapters", home / "live"
        self._shipped = shipped

    @property
    def watched(self) -> tuple[Path, ...]:
        """The folders in which a change may mean another answer."""
        return (self.root, self._live)

    def versions(self, plugin: str | None = None) -> list[Version]:
        """Every whole version, newest first; only those of one tab if `plugin` is given."""
        found = {v.ref: v for root in self._roots() for v in _scan(root)}
        chosen = [v for v in found.values() if plugin in (None, v.plugin)]
        return sorted(chosen, key=lambda v: (v.manifest.get("created", ""), v.number), reverse=True)

    def get(self, ref: str) -> Version:
        """The version called `name@7`, or the newest one called `name`; raises `AdapterError`."""
        name, _, number = ref.partition("@")
        if NAME.fullmatch(name) and (not number or NUMBER.fullmatch(number)):
            numbers = [int(number)] if number else sorted(self._numbers(name), reverse=True)
            for n in numbers:
                for root in self._roots():
                    if version := _read(root / name / str(n), name, n):
                        return version
        raise AdapterError(
            Text("There is no version {version}.", version=repr(ref)),
            Text("There are: {versions}.", versions=", ".join(v.ref for v in self.versions()) or "none yet"),
            "Choose one of these, or base for the model without an adapter.",
        )

    def live(self, plugin: str) -> Version | None:
        """What the tab answers with; None means the base."""
        return next(self.candidates(plugin))

    def candidates(self, plugin: str) -> Iterator[Version | None]:
        """What the tab should answer with, then what was live before it, and so on to the base (None).

        Versions that are gone are left out, so that a damaged folder never leaves a tab without an answer.
        """
        for ref in reversed(standing(self.history(plugin))):
            if ref == BASE:
                break
            with suppress(AdapterError):
                yield self.get(ref)
        yield None

    def history(self, plugin: str) -> list[dict[str, Any]]:
        """Every change of what a tab answers with, oldest first: version, at (Unix seconds), why, who, back, deleted.

        `back` is true for a roll back, `deleted` for a version that was removed, which changes no answer. Entries of
        older files may lack all but the version.
        """
        for root in (self._live, *([self._shipped / LIVE] if self._shipped else [])):
            path = root / f"{plugin}.json"
            if path.exists():
                return list(files.read_json(path))
        return []

    def promote(self, plugin: str, ref: str, why: str = "", who: str = "") -> None:
        """Make `ref` (or `base`) what the tab answers with; raises `AdapterError` if it is no version of that tab."""
        if ref != BASE and self.get(ref).plugin != plugin:
            raise AdapterError(f"{ref} is not a version of {plugin}.", f"It was made for {self.get(ref).plugin}.")
        with files.lock(self._live / ".lock"):
            entries = self.history(plugin)
            if standing(entries)[-1:] == [ref]:
                return  # or the next roll back would go nowhere
            self._record(plugin, entries, {"version": ref, "why": why, "who": who})

    def roll_back(self, plugin: str, why: str = "", who: str = "") -> str:
        """Return to what was live before; returns its name. Raises `AdapterError` when nothing was."""
        with files.lock(self._live / ".lock"):
            before = self.way_back(plugin)
            if before is None:
                raise AdapterError("There is nothing to roll back to.", f"{plugin} answers with its base.")
            self._record(plugin, self.history(plugin), {"version": before, "why": why, "who": who, "back": True})
        return before

    def way_back(self, plugin: str) -> str | None:
        """What a roll back would return to, a version that is there or the base; None when there is nothing to undo."""
        stood = standing(self.history(plugin))
        if not stood:
            return None
        there = {version.ref for version in self.versions(plugin)} | {BASE}
        return next((ref for ref in reversed(stood[:-1]) if ref in there), BASE)

    def delete(self, ref: str, why: str = "", who: str = "") -> None:
        """Remove a version for good; raises `AdapterError` where it is still needed, or came with Graft.

        Its number is not given again, and the history of its tab keeps who removed it, when and why.
        """
        version = self.get(ref)
        if version.path.parent.parent != self.root:
            raise AdapterError(f"{version.ref} cannot be deleted.", "It came with Graft.")
        with files.lock(self._live / ".lock"):
            live = self.live(version.plugin)
            if live and live.ref == version.ref:
                raise _needed(version, f"{version.plugin} answers with it.")
            if self.way_back(version.plugin) == version.ref:
                raise _needed(version, f"A roll back of {version.plugin} would return to it.")
            # One rename, so that no reader sees half of it; what a crash leaves is swept as any staging folder.
            aside = files.new_staging(self.root)
            try:
                version.path.rename(aside / "deleted")
                gone = {"version": version.ref, "why": why, "who": who, "deleted": True}
                self._record(version.plugin, self.history(version.plugin), gone)
            except BaseException:
                with suppress(FileNotFoundError):
                    (aside / "deleted").rename(version.path)
                aside.rmdir()
                raise
        shutil.rmtree(aside, ignore_errors=True)

    def _record(self, plugin: str, entries: list[dict[str, Any]], entry: Mapping[str, Any]) -> None:
        entries.append({"at": time.time(), **entry})
        files.write_json(self._live / f"{plugin}.json", _recent(entries))

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder to build a version in; deleted at the end unless it was published."""
        folder = files.new_staging(self.root)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, staging: Path, name: str, facts: Mapping[str, Any]) -> Version:
        """Turn a finished staging folder into the next version of `name`, all at once.

        The manifest, with the size and hash of every other file, is written last; then one rename makes it visible.
        Two publishers of one name get different numbers: a rename onto a folder that exists fails, and is tried again.
        """
        parent = self.root / check_name(name)
        parent.mkdir(parents=True, exist_ok=True)
        contents = {
            str(p.relative_to(staging)): {"size": p.stat().st_size, "sha256": files.sha256(p)}
            for p in sorted(staging.rglob("*"))
            if p.is_file() and p.name != MANIFEST
        }
        while True:
            number = self._next_number(name)
            manifest = {"format": 1, "name": name, "number": number, **facts, "files": contents}
            files.write_json(staging / MANIFEST, manifest)
            try:
                files.seal(staging, parent / str(number))
            except OSError:
                if not (parent / str(number)).exists():
                    raise
            else:
                return Version(name, number, parent / str(number), manifest)

    def _next_number(self, name: str) -> int:
        """One above every number that `name` ever had, so that a deleted version is never mistaken for a new one."""
        record = self.root / name / LAST
        last = int(record.read_text()) if record.exists() else 0
        number = max(self._numbers(name), default=0)
        number = max(number, last) + 1
        files.write_text(record, str(number))
        return number

    def _roots(self) -> list[Path]:
        return [self.root, *([self._shipped] if self._shipped else [])]

    def _numbers(self, name: str) -> set[int]:
        folders = [p for root in self._roots() if (root / name).is_dir() for p in (root / name).iterdir()]
        return {int(p.name) for p in folders if NUMBER.fullmatch(p.name)}


def _needed(version: Version, why: str) -> AdapterError:
    return AdapterError(f"{version.ref} cannot be deleted.", why, "Make another version live first.")


def _recent(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The last entries of each kind: many deletions must not push out what a tab answers with."""
    deleted = [bool(entry.get("deleted")) for entry in entries]
    return [
        entry for number, entry in enumerate(entries) if deleted[number + 1 :].count(deleted[number]) < HISTORY_LENGTH
    ]


def standing(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a tab answered with, oldest first, leaving out what was rolled back; the last is what it answers with now.

    A roll back undoes entries until the version that it returned to is the last: so it holds for a history whose
    beginning was cut off, too.
    """
    found: list[str] = []
    for entry in entries:
        if entry.get("deleted"):
            continue
        ref = str(entry["version"])
        if entry.get("back"):
            del found[-1:]
            while found and found[-1] != ref:
                found.pop()
            if found or ref == BASE:
                continue
        found.append(ref)
    return found


def _scan(root: Path) -> Iterator[Version]:
    for manifest in sorted(root.glob(f"*/*/{MANIFEST}")):
        folder = manifest.parent
        if NAME.fullmatch(folder.parent.name) and NUMBER.fullmatch(folder.name):
            version = _read(folder, folder.parent.name, int(folder.name))
            if version:
                yield version


def _read(folder: Path, name: str, number: int) -> Version | None:
    """The version in `folder` if its manifest is whole and every file has its size; None otherwise."""
    try:
        manifest = files.read_json(folder / MANIFEST)
        whole = all((folder / f).stat().st_size == facts["size"] for f, facts in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Version(name, number, folder, manifest) if whole and manifest.get("plugin") else None
