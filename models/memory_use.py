"""Whether a base fits into the memory that is free, before its weights are read."""

from __future__ import annotations

import ctypes
import math
from contextlib import suppress
from pathlib import Path

from errors import ModelError
from models import weights
from models.resolve import Model

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


QUANTIZED_BYTES = {"8bit": 1.2, "4bit": 0.8}
"""Of one weight while it is held, embeddings and a little of the loading included."""
SPARE = 300_000_000
"""Bytes that are left for everything else."""


def require(model: Model, quantize: str, width: int, accelerator: int | None = None) -> None:
    """Raise `ModelError` where a further base would not fit, held as `quantize`.

    `width` is the bytes of one weight that is not quantized;
    `accelerator` is the bytes that are free where the weights will lie, if that is not the main memory.
    """
    count = sum(math.prod(tensor.shape) for tensor in weights.tensors(model.path))
    wanted = count * QUANTIZED_BYTES.get(quantize, width)
    there = free() if accelerator is None else accelerator
    if wanted + SPARE > there:
        raise ModelError(
            f"There is no room for {model.id} beside what is loaded.",
            f"It needs {wanted / 1e9:.1f} GB of memory, and {there / 1e9:.1f} GB are free.",
            "End other programs, hold bases in fewer bits (GRAFT_QUANTIZE, GRAFT_PRECISION), or use a version of "
            "the tab's own base.",
        )


MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
LARGE = 1 << 20
"""Bytes from which a block is large."""


def return_large_blocks() -> bool:
    """From now on give each large block pages of its own, which go back to the system with it; whether that is done.

    Otherwise glibc keeps blocks of up to 32 MB in one heap, which ragged tensors tear: of training with gradient
    checkpointing, half of all memory lay in holes. It costs a sixth of the speed. Other libraries have no such choice.
    """
    with suppress(AttributeError, OSError):
        return bool(ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE))
    return False
