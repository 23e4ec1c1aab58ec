"""Disk and memory that may still be used: the quota of the home, and what the machine and its control groups allow."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psutil

from errors import GraftError
from settings import Settings
from store import files

EVERY_S = 5.0
"""Seconds for which the size of a home is kept: walking one with many versions takes a while."""
CONTROL_GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Bytes from which a control group's limit means none."""
LIMIT_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Names of control groups' files of limit and use, and the file cache's field in `memory.stat`; versions 2 and 1."""

_sizes: dict[Path, tuple[float, int]] = {}


def used(home: Path) -> int:
    """Return the bytes on disk of everything below `home`; a file with several links counts once."""
    at, size = _sizes.get(home, (0.0, 0))
    if at and time.monotonic() - at < EVERY_S:
        return size
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(home):
        for name in names:
            try:
                stat = os.lstat(os.path.join(folder, name))
            except OSError:  # removed since it was listed
                continue
            seen[stat.st_dev, stat.st_ino] = stat.st_blocks * 512
    size = sum(seen.values())
    _sizes[home] = time.monotonic(), size
    return size


def is_full(settings: Settings) -> bool:
    """Return whether the home takes all the disk that GRAFT_DISK_GB allows."""
    return bool(settings.disk_bytes) and used(settings.home) >= settings.disk_bytes


def check(settings: Settings, what: str) -> None:
    """Raise `GraftError` where the home is full; `what` is the sentence that says what cannot be done."""
    if is_full(settings):
        why = f"Graft may use {settings.disk_bytes / 1e9:,.1f} GB of disk, and does."
        raise GraftError(what, why, "Delete runs or versions, or raise GRAFT_DISK_GB.")


def free_disk(folder: Path) -> int:
    """Return the bytes free on the disk of `folder`, which need not exist yet."""
    folder = folder.expanduser().absolute()
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def require_disk(folder: Path, needed: int, error: type[GraftError], what: str, variable: str) -> None:
    """Raise `error` with the sentence `what` where the disk of `folder` has fewer than `needed` bytes free.

    `variable` is the setting that names another disk.
    """
    free = free_disk(folder)
    if free < needed:
        why = f"It needs {needed // 1_000_000} MB of disk and {free // 1_000_000} MB are free."
        raise error(what, why, f"Free some space, or set {variable} to a larger disk.")


def free_memory() -> int:
    """Return the bytes of memory that a process may still take: the machine's, within its control groups' limits."""
    return min(int(psutil.virtual_memory().available), *map(_free_in_group, _control_groups()), UNLIMITED)


def _control_groups() -> list[Path]:
    """List the control groups of this process, the innermost first, in either version of their interface."""
    groups = []
    for line in files.read_if_there(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = CONTROL_GROUPS / controllers
            inner = root / path.lstrip("/")
            groups += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return groups


def _free_in_group(group: Path) -> int:
    """Return the bytes below a group's limit; its file cache counts as free, because the kernel drops it at need."""
    for limit_file, used_file, cache_field in LIMIT_FILES:
        limit, now = (files.read_if_there(group / name).strip() for name in (limit_file, used_file))
        if limit.isdigit() and now.isdigit() and int(limit) < UNLIMITED:
            lines = (line.split() for line in files.read_if_there(group / "memory.stat").splitlines())
            cache = next((int(line[1]) for line in lines if line[0] == cache_field), 0)
            return max(0, int(limit) - int(now) + cache)
    return UNLIMITED
