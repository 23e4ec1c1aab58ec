"""Changes to a process that libraries offer no documented option for, each with its reason and its measured effect.

| change | applies to | reason | effect |
|---|---|---|---|
| `kernels` is blocked | every process | bitsandbytes loads code from the Hub with it, unasked | security |
| `GOMP_SPINCOUNT`: 0.2 ms, not 3 | page, children | idle threads keep cores from other processes | several x |
| the same, and not 0 | page, children | a step of a generation would wait for threads to wake | 1/3 of the step |
| oneDNN caches 256 kernels, not 1,024 | page, children | each bfloat16 kernel keeps its buffers | up to 1 GB |
| the same, and not 64 | page, children | kernels of a lone classification would be made anew | 1.5 x its time |
| the same, 16 | runs | micro-batches have many shapes, and no step is urgent | memory |
| large blocks by `mmap` | runs that save memory | ragged tensors tear glibc's heap | memory / 2, speed - 1/6 |
| unused modules are blocked | runs, inspections | libraries import them because they exist | 200 MB, seconds |

The variables must be set before torch is imported. This module imports neither torch nor transformers.
"""

from __future__ import annotations

import ctypes
import logging
import sys
from contextlib import suppress

ENVIRONMENT = {"GOMP_SPINCOUNT": "20000", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
"""Variables of the page and of its child processes, unless the operator has set them."""
RUN_ENVIRONMENT = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
"""Variables of training runs."""
MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of malloc.h
LARGE_BLOCK = 1 << 20
"""Bytes."""

sys.modules["kernels"] = None  # type: ignore[assignment]
# bitsandbytes warns that it could not import it.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def block_modules(*names: str) -> None:
    """Make imports of these modules fail in this process, as if they were not installed; loaded ones stay loaded.

    https://docs.python.org/3/reference/import.html#the-module-cache
    """
    for name in names:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]


def return_large_blocks() -> bool:
    """Allocate large blocks in pages of their own from now on, which return to the system when they are freed.

    Returns False where the C library is not glibc and has no such option.
    """
    with suppress(AttributeError, OSError):
        return bool(ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, LARGE_BLOCK))
    return False
