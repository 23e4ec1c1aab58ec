"""Find a model by its id: in a local folder, the Hugging Face cache, on the Hub or a package index.

    ModelStore(settings.home / "models", settings.offline).resolve("HuggingFaceTB/SmolLM2-135M-Instruct")

An id is a folder or `org/name`, with `@revision` for a commit, branch or tag. A model that came from a package stays
the one of that id, because a base must not change under its adapters.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from errors import AdapterError, ModelError
from hub.client import Progress, Unreachable, silent
from hub.models import Hub, cached_snapshot
from hub.package_index import MIRRORS, Mirror, install
from models import weights
from models.preflight import check_model
from store import files
from store.adapters import Version
from store.staging import is_placed, place

MODEL_ID = re.compile(r"(?P<repo>(?!\.)[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")
RECORD = "bases.json"
Source = Literal["folder", "cache", "hub", "package"]


@dataclass(frozen=True)
class Model:
    """A base on this disk that passed the checks of `preflight`."""

    id: str
    path: Path
    revision: str
    """The commit sha, `package==version`, or "local"."""
    source: Source
    config: Mapping[str, Any]
    """Its `config.json`."""

    @cached_property
    def identity(self) -> str:
        """A short digest of the weights, the same after a re-save; raises `ModelError` for damaged files."""
        return weights.identity(self.path)

    @cached_property
    def shape_id(self) -> str:
        """A short digest of tensor names and shapes, which adapters have to fit; raises `ModelError`."""
        return weights.shape_id(self.path)


def fits(version: Version, model: Model) -> bool:
    """Return whether `version` was made for this base: one of the same id and shapes, or with the same weights."""
    base = _base_of(version)
    same_name = base.get("id") == model.id.partition("@")[0] and base.get("shape_id") == model.shape_id
    return (same_name and model.source != "folder") or base.get("identity") == model.identity


class ModelStore:
    """Finds, downloads and checks bases. Safe for threads and for several processes on one folder."""

    def __init__(self, root: Path, offline: bool = False) -> None:
        """`root` is the folder of bases from packages; `offline` uses no network."""
        self._root, self._offline, self._hub = root, offline, Hub()

    def resolve(self, model_id: str, progress: Progress = silent) -> Model:
        """Return the model of that id, downloaded and converted if necessary; raises `ModelError`."""
        folder = os.path.expanduser(model_id)  # like os.path.isdir, it takes any text without raising
        if os.path.isdir(folder):
            return _checked(model_id, Path(folder).absolute(), "local", "folder")
        return self.resolve_hub_id(model_id, progress)

    def resolve_hub_id(self, model_id: str, progress: Progress = silent) -> Model:
        """Do as `resolve` for an id that is never a folder, even where one of that name exists."""
        match = MODEL_ID.fullmatch(model_id)
        if match is None:
            why = "It is neither a folder on this computer nor a Hub id such as org/name or org/name@revision."
            raise ModelError(f"{model_id[:200]!r} is not a model.", why, "Give one of the two.")
        repo, revision = match.group("repo", "revision")
        if (snapshot := cached_snapshot(repo, revision)) is not None:
            return _checked(model_id, snapshot, snapshot.name, "cache")
        mirror = None if revision else MIRRORS.get(repo)
        if mirror is not None and is_placed(self._root / _folder_name(repo), _facts(repo, mirror)):
            return self._from_package(model_id, repo, mirror, progress)
        if self._offline:
            raise _missing(model_id, "Graft is offline (HF_HUB_OFFLINE) and the model is not on this computer.")
        try:
            folder = self._hub.fetch(repo, revision, progress)
        except (Unreachable, ModelError) as error:
            if mirror is not None:
                return self._from_package(model_id, repo, mirror, progress)
            if isinstance(error, ModelError):
                raise
            why = f"It is not on this computer and the Hugging Face Hub cannot be reached: {error}."
            raise _missing(model_id, why) from error
        return _checked(model_id, folder, folder.name, "hub")

    def _from_package(self, model_id: str, repo: str, mirror: Mirror, progress: Progress) -> Model:
        build = partial(install, mirror, progress=progress)
        folder = place(self._root, _folder_name(repo), _facts(repo, mirror), build)
        return _checked(model_id, folder.absolute(), mirror.package.requirement, "package")


def _checked(model_id: str, folder: Path, revision: str, source: Source) -> Model:
    return Model(model_id, folder, revision, source, check_model(folder, model_id))


def _facts(repo: str, mirror: Mirror) -> Mapping[str, str]:
    return {"id": repo, "source": "package", "revision": mirror.package.requirement}


def _folder_name(repo: str) -> str:
    return repo.replace("/", "--")


def _missing(model_id: str, why: str) -> ModelError:
    next_ = f"Connect once to fetch it, give a local folder, or use one that a package index has: {', '.join(MIRRORS)}."
    return ModelError(f"The model {model_id} is not available.", why, next_)


class Origins:
    """Finds the bases that versions were made for. Safe for threads and for several processes on one home."""

    def __init__(self, home: Path, configured: Iterable[str] = ()) -> None:
        """`configured` are the bases in the operator's settings."""
        self._home = home
        self._folders = [Path(name) for name in configured if os.path.isdir(name)]

    def note(self, model: Model) -> None:
        """Record the folder of a base that a run of this home used; does nothing for bases of the Hub."""
        if model.source != "folder":
            return
        with files.lock(self._home / f".{RECORD}.lock"):
            others = [entry for entry in self._noted() if entry["path"] != str(model.path)]
            entry = {"path": str(model.path), "identity": model.identity}
            files.write_json(self._home / RECORD, [*others, entry])

    def id_of(self, version: Version, own: str = "", model: Model | None = None) -> str:
        """Return the id of a version's base: `own`, the tab's base, if the version fits `model`, its resolved form.

        Otherwise returns the absolute path of a folder, or an id for `ModelStore.resolve_hub_id`. Raises `AdapterError`
        for a base that cannot be found.
        """
        base = _base_of(version)
        name, revision = str(base.get("id", "")), str(base.get("revision", ""))
        pinned = f"{name}@{revision}" if COMMIT.fullmatch(revision) else name
        if model is not None and fits(version, model):
            # The resolved commit may be newer than the version's, which is preferred where the cache has it.
            same = base.get("identity") == model.identity or pinned == name or not MODEL_ID.fullmatch(pinned)
            return own if same or cached_snapshot(name, revision) is None else pinned
        if base.get("source") == "folder":
            return self._folder(version, name, str(base.get("identity", "")))
        if not MODEL_ID.fullmatch(name):
            raise _unknown(version, name, "That is no Hub id.")
        return own if model is None and own.partition("@")[0] == name else pinned

    def _folder(self, version: Version, name: str, identity: str) -> str:
        for entry in self._noted():
            if entry["identity"] == identity and os.path.isdir(entry["path"]):
                return str(entry["path"])
        for folder in self._folders:
            if folder.name == name:
                return str(folder.absolute())
        raise _unknown(version, name, "That is a folder, and nobody has said where it lies here.")

    def _noted(self) -> list[dict[str, Any]]:
        try:
            entries = files.read_json(self._home / RECORD)
        except (OSError, ValueError):
            return []
        return [entry for entry in entries if isinstance(entry, dict) and {"path", "identity"} <= entry.keys()]


def _base_of(version: Version) -> dict[str, Any]:
    return version.manifest.get("base") or {}


def short_name(version: Version) -> str:
    """Return the last part of the id of a version's base."""
    return str(_base_of(version).get("id", "")).rsplit("/", 1)[-1]


def of_another_base(version: Version, own: str) -> bool:
    """Return whether a version was made for another base than `own`, by the ids alone."""
    name = str(_base_of(version).get("id", ""))
    return name not in ("", own.partition("@")[0], Path(own).name)


def _unknown(version: Version, name: str, why: str) -> AdapterError:
    return AdapterError(
        f"{version.ref} cannot be loaded.",
        f"It was made for the base {name[:100]!r}. {why}",
        "Give a tab that folder as its base (GRAFT_MODEL_<TAB>), or choose another version.",
    )
