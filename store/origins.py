"""Which base a version was made for, as an id that may be resolved on this machine.

A manifest is somebody else's word. A Hub id in it is looked up as one, at the commit that it names, and never as a
folder. A folder goes in it by its bare name and its weights; where such a folder lies is told by the operator's
settings or by a run of this home, which notes it in `bases.json`, and by nobody else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from errors import AdapterError
from store import files
from store.adapters import Version
from store.models import MODEL_ID, Model
from store.snapshots import cached_snapshot

RECORD = "bases.json"
COMMIT = re.compile(r"[0-9a-f]{40}")


class Origins:
    """Where the bases of versions are to be found. Safe for threads and for several processes on one home."""

    def __init__(self, home: Path, named: Iterable[str] = ()) -> None:
        """`named` are the bases of the operator's settings."""
        self._home = home
        self._named = [name for name in named if os.path.isdir(name)]

    def note(self, model: Model) -> None:
        """Remember where a run of this home found a base that is a folder."""
        if model.source != "folder":
            return
        with files.lock(self._home / f".{RECORD}.lock"):
            others = [entry for entry in self._noted() if entry["path"] != str(model.path)]
            entry = {"path": str(model.path), "identity": model.identity}
            files.write_json(self._home / RECORD, [*others, entry])

    def id_of(self, version: Version, own: str = "", model: Model | None = None) -> str:
        """The id of a version's base: `own`, the tab's, where `model`, which that is, is the one.

        Otherwise the absolute path of a folder, or a Hub id, to be resolved by `ModelStore.named`. Raises
        `AdapterError` for a base that cannot be found.
        """
        base: dict[str, Any] = version.manifest.get("base") or {}
        name, revision = str(base.get("id", "")), str(base.get("revision", ""))
        pinned = f"{name}@{revision}" if COMMIT.fullmatch(revision) else name
        if model is not None and version.fits(model):
            # The Hub's newest commit may be another than the one it was made on; that one is taken where it is here.
            same = base.get("identity") == model.identity or pinned == name or not MODEL_ID.fullmatch(pinned)
            return own if same or cached_snapshot(name, revision) is None else pinned
        if base.get("source") == "folder":
            return self._folder(version, name, str(base.get("identity", "")))
        if not MODEL_ID.fullmatch(name) or name.startswith("."):
            raise _unknown(version, name, "That is no Hub id.")
        return own if model is None and own.partition("@")[0] == name else pinned

    def _folder(self, version: Version, name: str, identity: str) -> str:
        for entry in self._noted():
            if entry["identity"] == identity and os.path.isdir(entry["path"]):
                return str(entry["path"])
        for path in self._named:
            if Path(path).name == name:
                return str(Path(path).absolute())
        raise _unknown(version, name, "That is a folder, and nobody has said where it lies here.")

    def _noted(self) -> list[dict[str, Any]]:
        try:
            found = files.read_json(self._home / RECORD)
        except (OSError, ValueError):
            return []
        return [entry for entry in found if isinstance(entry, dict) and {"path", "identity"} <= entry.keys()]


def short_name(version: Version) -> str:
    """The last part of the name of a version's base."""
    return str((version.manifest.get("base") or {}).get("id", "")).rsplit("/", 1)[-1]


def of_another_base(version: Version, own: str) -> bool:
    """Whether a version says that it was made for another base than `own`, by its name alone."""
    name = str((version.manifest.get("base") or {}).get("id", ""))
    return name not in ("", own.partition("@")[0], Path(own).name)


def _unknown(version: Version, name: str, why: str) -> AdapterError:
    return AdapterError(
        f"{version.ref} cannot be loaded.",
        f"It was made for the base {name[:100]!r}. {why}",
        "Give a tab that folder as its base (GRAFT_MODEL_<TAB>), or choose another version.",
    )
