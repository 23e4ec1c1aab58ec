"""The C library's allocator: what it keeps of memory that was given back."""

from __future__ import annotations

import ctypes
from contextlib import suppress

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
