"""Folders that appear whole or not at all: built in a staging folder under a lock, given a manifest, and renamed.

A manifest has the size and hash of every other file; readers take a folder only when every file has its size. A killed
process leaves a `.staging-*` folder behind, which no reader looks into and which is swept after a day.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from store import files

MANIFEST = "manifest.json"

Build = Callable[[Path, Path], None]
"""`build(work, out)` fills the folder `out`; `work` is a scratch folder."""


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return {"size": bytes, "sha256": digest} of every file below `folder` but a manifest, by relative path."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    return {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha256": files.sha256(path)} for path in paths
    }


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a whole folder; None for a folder that is missing, unfinished or damaged."""
    try:
        manifest: dict[str, Any] = files.read_json(folder / MANIFEST)
        whole = all((folder / name).stat().st_size == file["size"] for name, file in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def find_changed(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Return the first file of the manifest that is missing or has other bytes; None if every file is as described."""
    for name, facts in manifest["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts["size"] or files.sha256(path) != facts["sha256"]:
            return str(name)
    return None


def is_placed(folder: Path, facts: Mapping[str, str], hashes: bool = False) -> bool:
    """Return whether the folder is whole and was placed with these facts; with `hashes`, its files are hashed too."""
    manifest = read_manifest(folder)
    if manifest is None or not facts.items() <= manifest.items():
        return False
    return not hashes or find_changed(folder, manifest) is None


def place(root: Path, name: str, facts: Mapping[str, str], build: Build, hashes: bool = False) -> Path:
    """Return the folder `root/name`, built once however many threads and processes ask for it at the same time.

    `facts` become part of its manifest. A folder with other facts is replaced; with `hashes`, also one with changed
    files.
    """
    target = root / name
    if is_placed(target, facts, hashes):
        return target
    with files.lock(_lock_of(root, name)):
        if not is_placed(target, facts, hashes):
            _build(root, target, facts, build)
    return target


def _build(root: Path, target: Path, facts: Mapping[str, str], build: Build) -> None:
    with files.staging(root, f"{target.name}-") as folder:
        work, out = folder / "work", folder / "out"
        work.mkdir()
        out.mkdir()
        build(work, out)
        files.write_json(out / MANIFEST, {**facts, "files": describe_files(out)})
        if target.exists():
            # A damaged, outdated or foreign folder is kept for a day.
            aside = target.rename(files.staging_name(root))
            os.utime(aside)
        files.seal(out, target)


def sweep(root: Path) -> None:
    """Delete unfinished folders of processes that died; those of living ones are locked."""
    for folder in root.glob(f"{files.STAGING_PREFIX}*-{'[0-9a-f]' * 32}"):
        name = folder.name.removeprefix(files.STAGING_PREFIX)[:-33]
        with files.try_lock(_lock_of(root, name)) as unlocked:
            if unlocked:
                shutil.rmtree(folder, ignore_errors=True)


def discard(root: Path, name: str) -> None:
    """Delete the folder `root/name`, at once for every reader."""
    aside = files.staging_name(root)
    with suppress(FileNotFoundError):
        (root / name).rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _lock_of(root: Path, name: str) -> Path:
    return root / f".{name}.lock"
