"""Estimate the memory, disk and steps of a run before it begins, without reading weights.

    python -m training estimate --plugin classification --data examples/tickets.csv

The time of a step is taken from earlier runs on the same base, where there are any.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from store import files
from training.config import TrainConfig
from training.data.files.formats import parts
from training.estimate import training_memory
from training.estimate.base_shapes import find_shape
from training.estimate.lengths import LengthHistogram
from training.estimate.machine import FreeResources, processor
from training.estimate.training_memory import RunPlan
from training.events import RESULT

MARGIN = 0.95
"""Share of the free memory or disk that an estimate may take."""
CHECKPOINTS = 3
"""Checkpoints on the disk at once: two, and the one that is being written."""
CHECKPOINT_BYTES = 12
"""Bytes of a trained parameter in a checkpoint: itself and two moments; the best state so far adds 4."""
TOKEN_BYTES = 5
"""Bytes of a prepared token on the disk."""
LEAST_DISK = 50_000_000
"""Bytes for events, the log and the card."""
RECENT_RUNS, TIMED_RUNS = 40, 5
"""Newest runs that are searched for comparable ones, and the comparable ones whose median is taken."""


@dataclass(frozen=True)
class Estimate:
    """Estimated memory and disk of one run, in bytes by part, beside the free resources."""

    memory: Mapping[str, int]
    disk: Mapping[str, int]
    available: FreeResources
    steps: int
    tokens: int
    """Tokens of all steps together."""
    longest: int
    """Tokens of the longest row."""
    checkpointing: bool
    """True for gradient checkpointing."""
    lengths_by: str
    """The source of the lengths, as in `LengthHistogram.by`."""
    key: str
    """Key of runs with the same speed per token: the base, its precision, and the machine."""

    @property
    def free(self) -> int:
        """Return the free bytes of the GPU's memory, or of the machine's without one."""
        return self.available.gpu or self.available.memory

    @property
    def peak(self) -> int:
        """Return the peak memory in bytes."""
        return sum(self.memory.values())

    @property
    def stored(self) -> int:
        """Return the peak disk use in bytes."""
        return sum(self.disk.values())

    @property
    def fits_memory(self) -> bool:
        """Return whether memory suffices."""
        return self.peak <= MARGIN * self.free

    @property
    def fits(self) -> bool:
        """Return whether memory and disk suffice."""
        return self.fits_memory and self.stored <= MARGIN * self.available.disk

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, as in events and results."""
        found = asdict(self)
        available = found.pop("available")
        device = "cuda" if self.available.gpu else "cpu"
        free = {"memory": self.free, "disk": available["disk"], "device": device, "gpu": available["gpu_name"]}
        return {"peak": self.peak, "stored": self.stored, "fits": self.fits, "free": free, **found}


def estimate_run(plan: RunPlan) -> Estimate:
    """Return the estimate of a run; with `auto`, gradient checkpointing is used where the run fits only so."""
    choice = plan.config.gradient_checkpointing
    plain = _estimate(replace(plan, checkpointing=choice == "on"))
    if choice == "auto" and not plain.fits_memory:
        saving = _estimate(replace(plan, checkpointing=True))
        return saving if saving.fits_memory else plain
    return plain


def _estimate(plan: RunPlan) -> Estimate:
    config, lengths = plan.config, plan.lengths
    batches = max(1, math.ceil(lengths.count / config.batch_size))
    steps, cores = config.max_steps or max(1, math.ceil(config.epochs * batches)), len(os.sched_getaffinity(0))
    return Estimate(
        memory=training_memory.parts(plan),
        disk=_disk(plan),
        available=plan.available,
        steps=steps,
        tokens=round(steps * lengths.count / batches * lengths.mean),
        longest=lengths.longest,
        checkpointing=plan.checkpointing,
        lengths_by=lengths.by,
        key=f"{config.model} {plan.quantize} {plan.half} {plan.checkpointing} {processor()[0]} x{cores}",
    )


def _disk(plan: RunPlan) -> dict[str, int]:
    data = Path(plan.config.data)
    size = sum(part.stat().st_size for part in parts(data) if part.is_file()) if data.is_file() else 0
    state = CHECKPOINT_BYTES + (4 if plan.config.keep_best or plan.config.patience else 0)
    return {
        "rows": 2 * min(size, 64_000_000),  # the run's own copy, and the held-out ones in the card
        "prepared": int(plan.rows.count * plan.rows.mean * TOKEN_BYTES),
        "checkpoints": CHECKPOINTS * state * plan.trained,
        "version": 8 * plan.trained + LEAST_DISK,  # written beside itself, and renamed
    }


def plan_run(
    config: TrainConfig, home: Path, rows: LengthHistogram, labels: int, available: FreeResources
) -> RunPlan | None:
    """Return the plan of a configuration; None for a base that is not on this disk or has an unknown shape."""
    shape, _ = find_shape(config.model, home)
    return RunPlan(config, shape, rows, labels, available) if shape else None


def seconds_a_step(home: Path, expected: Estimate) -> tuple[float, int]:
    """Return the seconds of a step by earlier runs in `home` with the same key, and their number; (0, 0) without any.

    Seconds per token are compared, as batches and rows may have other sizes.
    """
    results = sorted((home / "runs").glob(f"[!.]*/{RESULT}"), reverse=True)[:RECENT_RUNS]
    found: list[float] = []
    for path in results:
        with suppress(OSError, ValueError, KeyError, TypeError, ZeroDivisionError):
            result = files.read_json(path)
            if result["estimate"]["key"] == expected.key:
                found.append(result["measured"]["seconds"]["train"] / result["measured"]["tokens"])
    timed = found[:TIMED_RUNS]
    return (statistics.median(timed) * expected.tokens / expected.steps if timed else 0.0), len(timed)
