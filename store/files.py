"""Files that are whole or absent: durable writes, renames, hashes and locks.

Bytes are synced before the rename and the directory after it, so that a reader sees the old file or the new one at any
moment: the order that applications get wrong according to ALICE (Pillai et al., OSDI 2014).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import finalize

STAGING_PREFIX = ".staging-"
STALE_AFTER_S = 24 * 3600
JSON_LIMIT = 8_000_000
"""Bytes of a configuration file; the largest real ones (label maps, shard indexes) stay below 4 MB."""
UNSAFE = (".bin", ".pt", ".pth", ".pkl", ".ckpt", ".h5", ".msgpack")
"""Suffixes of weight files that can run code when they are loaded."""


def sha256(path: Path, watch: Callable[[int], None] = lambda done: None) -> str:
    """Return the hex digest of a file; `watch` is called with the bytes read so far."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            watch(file.tell())
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace `path` atomically and durably."""
    sweep(path.parent)
    temporary = staging_name(path.parent)
    try:
        temporary.write_text(text, encoding="utf-8")
        sync(temporary)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Replace `path` atomically with `value` as readable JSON."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value in `path`; raises `OSError` or `ValueError`."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_if_there(path: Path) -> str:
    """Return the text of `path`, with replacement characters where it is not UTF-8; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def staging_name(parent: Path, name: str = "") -> Path:
    """Return a path in `parent`, unique and invisible to readers, for something unfinished."""
    return parent / f"{STAGING_PREFIX}{name}{uuid.uuid4().hex}"


def new_staging(parent: Path, name: str = "") -> Path:
    """Make a staging folder in `parent` that no reader looks into; sweeps abandoned ones first."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    staging = staging_name(parent, name)
    staging.mkdir()
    return staging


def sweep(parent: Path, older_than_s: float = STALE_AFTER_S) -> None:
    """Delete staging leftovers of processes that died."""
    for path in parent.glob(f"{STAGING_PREFIX}*"):
        # Another process may finish or sweep the same one at this moment.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > older_than_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def seal(staging: Path, target: Path) -> None:
    """Sync every file of `staging` and rename it to `target`; raises `OSError` when `target` already exists."""
    for path in sorted(staging.rglob("*")):
        sync(path)
    sync(staging)
    staging.rename(target)
    sync(target.parent)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel releases it when the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Use:
    """A shared claim that something is in use, held by any number of processes until `end` or until they end."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        os.utime(self._descriptor)
        self.end = finalize(self, os.close, self._descriptor)


@contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Yield whether nobody holds a `Use` of `path`; nobody can take one until the block ends."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
