"""Files that are whole or absent: durable writes, renames, hashes and locks.

Bytes are synced before the rename and the directory after it, so that a reader sees the old file or the new one, also
after a crash (Pillai et al., All File Systems Are Not Created Equal, OSDI 2014).
"""

from __future__ import annotations

import errno
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
from typing import IO, Any
from weakref import finalize

STAGING_PREFIX = ".staging-"
STALE_AFTER_S = 24 * 3600
LOCK_POLL_S = 0.01
"""Seconds between two tries to take a lock that another process holds."""
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
    """Return the text of `path`, with U+FFFD where it is not UTF-8; "" where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def staging_name(parent: Path, name: str = "") -> Path:
    """Return a path in `parent`, unique and invisible to readers, for something unfinished."""
    return parent / f"{STAGING_PREFIX}{name}{uuid.uuid4().hex}"


@contextmanager
def staging(parent: Path, name: str = "") -> Iterator[Path]:
    """Yield a folder in `parent` that no reader looks into, removed at the end unless it was renamed.

    Sweeps abandoned ones first.
    """
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    folder = staging_name(parent, name)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(parent: Path, older_than_s: float = STALE_AFTER_S) -> None:
    """Delete staging leftovers of processes that died."""
    for path in parent.glob(f"{STAGING_PREFIX}*"):
        # Another process may finish or sweep the same one at this moment.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > older_than_s:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def seal(folder: Path, target: Path) -> None:
    """Sync every file of `folder` and rename it to `target`; raises `OSError` when `target` already exists."""
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)
    folder.rename(target)
    sync(target.parent)


class LockTimeout(TimeoutError):
    """A lock was still held at the end of the time to wait for it."""


@contextmanager
def lock(path: Path, seconds: float | None = None) -> Iterator[None]:
    """Hold an exclusive lock between processes; the kernel releases it when the process ends.

    Raises `LockTimeout` where it is still held after `seconds`, by a process that is suspended for example.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        if seconds is None:
            fcntl.flock(file, fcntl.LOCK_EX)
        else:
            deadline = time.monotonic() + seconds
            while not _try_flock(file):
                if time.monotonic() > deadline:
                    raise LockTimeout(errno.ETIMEDOUT, f"{path.name} has been held for {seconds:g} s")
                time.sleep(LOCK_POLL_S)
        yield


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Yield True while the exclusive lock is held, or False where another process or a `SharedLock` holds it."""
    with path.open("a") as file:
        yield _try_flock(file)


def _try_flock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class SharedLock:
    """A lock that any number of processes hold at once, each until `release`, or until the object or process ends."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)
        os.utime(self._descriptor)
        self.release = finalize(self, os.close, self._descriptor)
