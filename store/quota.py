"""How much disk a home takes, and whether that is all it may take."""

from __future__ import annotations

import os
import time
from pathlib import Path

from errors import GraftError
from settings import Settings

EVERY_S = 5.0
"""How long a figure is taken for the present one: a home of many versions takes a while to walk."""

_known: dict[Path, tuple[float, int]] = {}


def used(home: Path) -> int:
    """Bytes on the disk of everything below a folder, converted bases included; a linked file counts once."""
    at, size = _known.get(home, (0.0, 0))
    if at and time.monotonic() - at < EVERY_S:
        return size
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(home):
        for name in names:
            try:
                found = os.lstat(os.path.join(folder, name))
            except OSError:  # it has just gone
                continue
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    size = sum(seen.values())
    _known[home] = time.monotonic(), size
    return size


def is_full(settings: Settings) -> bool:
    """Whether nothing more may be put into the home."""
    return bool(settings.disk_bytes) and used(settings.home) >= settings.disk_bytes


def check(settings: Settings, what: str) -> None:
    """Raise `GraftError` that `what` cannot be done, where the home is full."""
    if is_full(settings):
        most = f"{settings.disk_bytes / 1e9:,.1f} GB"
        raise GraftError(
            what, f"Graft may use {most} of disk, and does.", "Delete runs or versions, or raise GRAFT_DISK_GB."
        )
