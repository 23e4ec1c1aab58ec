"""How much memory a run may take: a run that was expected to need little must not take all there is.

The limit is the kernel's, on the data of the process (RLIMIT_DATA): what goes beyond it fails in that process, as
memory that ran out, and is told as such. Nothing else on the machine notices.
"""

from __future__ import annotations

import resource

from settings import Settings
from training.estimate import Estimate

FACTOR = 2.0
"""Times what was estimated; of fifteen real runs none needed more than 1.13 of it (`python -m bench estimate`)."""
BESIDE = 2 * 2**30
"""Bytes for what the estimate does not count: stacks of threads, and what allocators reserve."""


def memory(expected: Estimate, settings: Settings) -> int:
    """Limit this process from here on; the limit in bytes, 0 for none, as on a GPU, whose driver reserves freely."""
    most = settings.run_memory_bytes
    if not most and expected.room.gpu:
        return 0
    most = most or int(FACTOR * expected.peak) + BESIDE
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    return most
