"""The needs of a run before it begins: memory, disk and steps, beside what is free. No weight is read.

    python -m training estimate --plugin classification --data examples/tickets.csv

Time is told from earlier runs on the same base alone, as seconds a step.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from store import files
from training.config import TrainConfig
from training.data.files.selection import parts
from training.estimate import machine, training_memory
from training.estimate.base_shapes import Shape, find_shape
from training.estimate.lengths import LengthHistogram
from training.estimate.machine import FreeResources
from training.estimate.training_memory import Workload, micro_batch_tokens
from training.events import RESULT

MARGIN = 0.95
"""Share of what is free that a run may be expected to take."""
CHECKPOINTS = 3
"""Checkpoints on the disk at once: two, and the one that is being written."""
CHECKPOINT_BYTES = 12
"""Bytes of a trained parameter in a checkpoint: itself and two moments; the best state so far adds 4."""
TOKEN_BYTES = 5
"""Bytes of a prepared token on the disk."""
LEAST_DISK = 50_000_000
"""Bytes for events, the log and the card."""
RECENT_RUNS, TIMED_RUNS = 40, 5
"""Newest runs that are searched for ones like this, and those of them whose median is taken."""


@dataclass(frozen=True)
class Estimate:
    """The needs of one run, in bytes by part, and what is free."""

    memory: Mapping[str, int]
    disk: Mapping[str, int]
    available: FreeResources
    steps: int
    tokens: int
    """Tokens of all steps together."""
    longest: int
    """Tokens of the longest row."""
    checkpointing: bool
    """Whether gradient checkpointing is on."""
    lengths_by: str
    """The source of the lengths, as in `LengthHistogram.by`."""
    key: str
    """Key of runs that are as fast for each token: the base, how it computes, and the machine."""

    @property
    def free(self) -> int:
        """Free bytes of the memory that the run computes in."""
        return self.available.gpu or self.available.memory

    @property
    def peak(self) -> int:
        """Bytes of memory at the worst moment."""
        return sum(self.memory.values())

    @property
    def stored(self) -> int:
        """Bytes of disk at the worst moment."""
        return sum(self.disk.values())

    @property
    def fits_memory(self) -> bool:
        """Return whether memory suffices."""
        return self.peak <= MARGIN * self.free

    @property
    def fits_disk(self) -> bool:
        """Return whether the disk suffices."""
        return self.stored <= MARGIN * self.available.disk

    @property
    def fits(self) -> bool:
        """Return whether both do."""
        return self.fits_memory and self.fits_disk

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, as in events, results and `--json`."""
        found = asdict(self)
        available = found.pop("available")
        device = {"device": self.available.device, "gpu": available["gpu_name"]}
        free = {"memory": self.free, "disk": available["disk"], **device}
        return {"peak": self.peak, "stored": self.stored, "fits": self.fits, "free": free, **found}


@dataclass(frozen=True)
class RunPlan:
    """A run before it begins: `config` on a base of that shape, on rows of those lengths."""

    config: TrainConfig
    shape: Shape
    lengths: LengthHistogram
    """Of all usable rows, those to hold out among them, before the cut to the longest length."""
    labels: int
    available: FreeResources
    held_out: int = 0
    """Rows that were held out already; `lengths` are then those of the rows to train on."""

    @property
    def half(self) -> bool:
        """Return whether it computes in 16 bits."""
        precision = self.config.precision
        return precision == "bfloat16" or (precision == "auto" and self.available.bfloat16)

    @property
    def quantize(self) -> str:
        """Return how the base is held: none, 8bit or 4bit."""
        return self.config.quantize if self.config.quantize != "auto" else "4bit" if self.available.gpu else "none"

    @property
    def micro_batch_tokens(self) -> int:
        """Return the padded tokens of one pass."""
        return self.config.micro_batch_tokens or micro_batch_tokens(self.available.device, self.half)

    def estimate(self) -> Estimate:
        """Estimate the run, with gradient checkpointing as configured, or for `auto` where memory asks for it."""
        choice = self.config.gradient_checkpointing
        plain = self._estimate(checkpointing=choice == "on")
        if choice == "auto" and not plain.fits_memory:
            saving = self._estimate(checkpointing=True)
            return saving if saving.fits_memory else plain
        return plain

    def _estimate(self, checkpointing: bool) -> Estimate:
        config = self.config
        work = self._workload(checkpointing)
        batches = max(1, math.ceil(work.lengths.count / config.batch_size))
        steps = config.max_steps or max(1, math.ceil(config.epochs * batches))
        return Estimate(
            memory=training_memory.parts(work),
            disk=self._disk(work),
            available=self.available,
            steps=steps,
            tokens=round(steps * work.lengths.count / batches * work.lengths.mean),
            longest=work.lengths.longest,
            checkpointing=checkpointing,
            lengths_by=self.lengths.by,
            key=f"{config.model} {work.quantize} {work.half} {checkpointing} {machine.identity()}",
        )

    def _workload(self, checkpointing: bool) -> Workload:
        config = self.config
        cut = self.lengths.cut(min(config.max_length, self.shape.window))
        return Workload(
            config=config,
            shape=self.shape,
            lengths=cut if self.held_out else cut.times(1 - config.held_out),
            held_out=self.held_out or max(1, round(config.held_out * cut.count)),
            labels=self.labels,
            device=self.available.device,
            quantize=self.quantize,
            half=self.half,
            checkpointing=checkpointing,
            budget=self.micro_batch_tokens,
        )

    def _disk(self, work: Workload) -> dict[str, int]:
        data = Path(self.config.data)
        size = sum(part.stat().st_size for part in parts(data) if part.is_file()) if data.is_file() else 0
        state = CHECKPOINT_BYTES + (4 if self.config.keep_best or self.config.patience else 0)
        return {
            "rows": 2 * min(size, 64_000_000),  # the run's own copy, and the held-out ones in the card
            "prepared": int(self.lengths.count * self.lengths.mean * TOKEN_BYTES),
            "checkpoints": CHECKPOINTS * state * work.trained,
            "version": 8 * work.trained + LEAST_DISK,  # written beside itself, and renamed
        }


def plan_run(
    config: TrainConfig, home: Path, lengths: LengthHistogram, labels: int, available: FreeResources
) -> RunPlan | None:
    """Return the plan of a configuration; None for a base that is not on this disk or has an unknown shape."""
    shape, _ = find_shape(config.model, home)
    return RunPlan(config, shape, lengths, labels, available) if shape else None


def seconds_a_step(home: Path, expected: Estimate) -> tuple[float, int]:
    """Return the seconds of a step, from earlier runs in `home` with the same key, and the number of these runs.

    Each run counts by its seconds for a token, so that batches and rows of other sizes are comparable. (0, 0) where
    there is no such run.
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
