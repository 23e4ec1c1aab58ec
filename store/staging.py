"""Finished folders appear whole or not at all: a staging folder, a manifest written last, one rename, one lock a name.

A reader takes a folder only when its manifest is there and every file has the size the manifest says. What a killed
process leaves behind is a `.staging-*` folder that nobody reads and that is swept after a day.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from store import files

MANIFEST = "manifest.json"

Build = Callable[[Path, Path], None]
"""`build(work, out)` fills the folder `out` and may use the folder `work` freely."""


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a whole folder, or None for one that is missing, unfinished or damaged."""
    try:
        manifest: dict[str, Any] = files.read_json(folder / MANIFEST)
        whole = all((folder / name).stat().st_size == file["size"] for name, file in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return manifest if whole else None


def is_placed(folder: Path, facts: Mapping[str, str], hashes: bool = False) -> bool:
    """Whether the folder is whole and was placed with these facts; with `hashes`, every byte of it is looked at."""
    manifest = read_manifest(folder)
    if manifest is None or not facts.items() <= manifest.items():
        return False
    return not hashes or all(files.sha256(folder / n) == file["sha256"] for n, file in manifest["files"].items())


def place(root: Path, name: str, facts: Mapping[str, str], build: Build, hashes: bool = False) -> Path:
    """The folder `root/name`, built once however many threads and processes ask for it at the same time.

    `facts` go into its manifest; a folder that has others (an earlier version, say) is replaced, and so is, with
    `hashes`, one with a file that is not what was placed.
    """
    target = root / name
    if is_placed(target, facts, hashes):
        return target
    with files.lock(_lock_of(root, name)):
        if not is_placed(target, facts, hashes):
            _build(root, target, facts, build)
    return target


def sweep(root: Path) -> None:
    """Remove what was being built by processes that died; what is being built now is locked."""
    for staging in root.glob(f"{files.STAGING_PREFIX}*-{'[0-9a-f]' * 32}"):
        name = staging.name.removeprefix(files.STAGING_PREFIX)[:-33]
        with files.unused(_lock_of(root, name)) as unused:
            if unused:
                shutil.rmtree(staging, ignore_errors=True)


def discard(root: Path, name: str) -> None:
    """Remove the folder `root/name` at once for every reader."""
    aside = root / f"{files.STAGING_PREFIX}{uuid.uuid4().hex}"
    with suppress(FileNotFoundError):
        (root / name).rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _lock_of(root: Path, name: str) -> Path:
    return root / f".{name}.lock"


def _build(root: Path, target: Path, facts: Mapping[str, str], build: Build) -> None:
    staging = files.new_staging(root, f"{target.name}-")
    work, out = staging / "work", staging / "out"
    try:
        work.mkdir()
        out.mkdir()
        build(work, out)
        _write_manifest(out, facts)
        if target.exists():
            _set_aside(root, target)
        files.seal(out, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _set_aside(root: Path, target: Path) -> None:
    """Move a damaged, outdated or foreign folder to where it stays for a day."""
    aside = root / f"{files.STAGING_PREFIX}{uuid.uuid4().hex}"
    target.rename(aside)
    os.utime(aside)


def _write_manifest(folder: Path, facts: Mapping[str, str]) -> None:
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    sizes = {name: {"size": path.stat().st_size, "sha256": files.sha256(path)} for name, path in paths.items()}
    files.write_json(folder / MANIFEST, {**facts, "files": sizes})
