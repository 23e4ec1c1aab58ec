"""Main memory that is free: what the machine has, within the limits of the control groups that this process is in."""

from __future__ import annotations

from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
UNLIMITED = 1 << 60
"""Bytes above which a limit is none."""


def free() -> int:
    """Bytes that a process may still take: what the machine has, and what each control group above it allows."""
    return min(_of_machine(), *(_left(folder) for folder in _groups()), UNLIMITED)


def _of_machine() -> int:
    for line in read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return UNLIMITED


def _groups() -> list[Path]:
    """The control groups that this process is in, the innermost first, of either version of their interface."""
    found = []
    for line in read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            root = GROUPS / controllers
            inner = root / path.lstrip("/")
            found += [folder for folder in (inner, *inner.parents) if folder.is_relative_to(root)]
    return found


def _left(group: Path) -> int:
    """What a group's limit leaves; what is kept of files does not count, because it is given up when needed."""
    for limit, used, kept in (("memory.max", "memory.current", "inactive_file"),
                              ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")):  # fmt: skip
        most, now = read(group / limit).strip(), read(group / used).strip()
        if most.isdigit() and now.isdigit() and int(most) < UNLIMITED:
            lines = (line.split() for line in read(group / "memory.stat").splitlines())
            cache = next((int(line[1]) for line in lines if line[0] == kept), 0)
            return max(0, int(most) - int(now) + cache)
    return UNLIMITED


def read(path: Path) -> str:
    """What a file of the system says; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
