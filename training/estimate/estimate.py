"""What a run will need, before it begins: memory, disk and time, beside what is free. No weight is read for it.

    python -m training estimate --plugin classification --data examples/tickets.csv

A figure is a forecast: `python -m bench estimate` compares it with runs. Time is that of a machine with nothing else
to do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from errors import GraftError
from models.resolve import ModelStore
from tasks import TASKS
from training.config import TrainConfig
from training.data.files.formats import parts
from training.estimate import base_shapes, duration, speed, training_memory
from training.estimate.base_shapes import Shape, of_model
from training.estimate.lengths import Lengths
from training.estimate.machine import Room
from training.estimate.training_memory import Work

MARGIN = 0.95
"""The share of what is free that a run may be expected to take."""
CHECKPOINTS = 3
"""Checkpoints that are on the disk at once: two, and the one that is being written."""
CHECKPOINT_BYTES = 12
"""Of a parameter that learns: itself and two moments; the best state so far comes besides."""
TOKEN_BYTES = 5
"""Of a token on the disk."""
LEAST_DISK = 50_000_000
"""Bytes for events, the log and the card."""


@dataclass(frozen=True)
class Estimate:
    """What a run needs, in bytes and seconds by part, and what is free."""

    memory: Mapping[str, int]
    disk: Mapping[str, int]
    seconds: Mapping[str, float]
    room: Room
    steps: int
    tokens: float
    """That all steps learn from."""
    longest: int
    """Tokens of the longest row."""
    checkpointing: bool
    """Whether parts are computed twice to hold less."""
    by: str
    """Where the speed comes from: runs, timed or guess."""
    runs: int
    """How many earlier runs."""
    lengths_by: str
    operations: Mapping[str, float]
    prepare_s: float
    """Seconds of `start` that are not those of a process and its libraries."""
    key: str
    """What earlier runs must have in common with this one to tell its speed."""

    @property
    def free(self) -> int:
        """Bytes of memory that are free where the run computes."""
        return self.room.gpu or self.room.memory

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
        """Whether memory suffices."""
        return self.peak <= MARGIN * self.free

    @property
    def fits_disk(self) -> bool:
        """Whether the disk suffices."""
        return self.stored <= MARGIN * self.room.disk

    @property
    def fits(self) -> bool:
        """Whether both do."""
        return self.fits_memory and self.fits_disk

    def to_dict(self) -> dict[str, Any]:
        """As events, results and `--json` have it."""
        found = asdict(self)
        room = found.pop("room")
        free = {"memory": self.free, "disk": room["disk"], "device": self.room.device, "gpu": room["gpu_name"]}
        sums = {"peak": self.peak, "stored": self.stored, "total_s": sum(self.seconds.values()), "fits": self.fits}
        return {**sums, "free": free, **found}


@dataclass(frozen=True)
class Case:
    """A run to be estimated: `config` on a base of that shape, on rows of those lengths."""

    config: TrainConfig
    shape: Shape
    lengths: Lengths
    """Of all usable rows, held-out ones among them; the run's own longest length is yet to be applied."""
    labels: int
    room: Room
    home: Path
    held_out: int = 0
    """Rows that are held out, where that is known."""
    live: bool = False
    """Whether a live version takes part in the card."""

    @property
    def half(self) -> bool:
        """Whether it computes in 16 bits."""
        return self.config.precision == "bfloat16" or (self.config.precision == "auto" and self.room.bfloat16)

    def estimate(self) -> Estimate:
        """What it needs, with gradient checkpointing as the configuration says, or as memory asks for it."""
        choice = self.config.gradient_checkpointing
        plain = self._with(checkpointing=choice == "on")
        if choice == "auto" and not plain.fits_memory:
            saving = self._with(checkpointing=True)
            return saving if saving.fits_memory else plain
        return plain

    def _with(self, checkpointing: bool) -> Estimate:
        work = self._work(checkpointing)
        pace = speed.pace(self.home, self.config.model, work)
        contenders = 3 if self.live else 2
        seconds = duration.seconds(work, contenders, pace)
        return Estimate(
            memory=training_memory.parts(work), disk=self._disk(work), seconds=seconds,
            prepare_s=seconds["start"] - pace.start_s,
            room=self.room, steps=work.steps, tokens=round(work.tokens), longest=work.lengths.longest,
            checkpointing=checkpointing, by=pace.by, runs=pace.runs, lengths_by=self.lengths.by,
            operations=duration.operations(work, contenders), key=speed.key_of(self.config.model, work),
        )  # fmt: skip

    def _work(self, checkpointing: bool) -> Work:
        config, room = self.config, self.room
        cut = self.lengths.cut(min(config.max_length, self.shape.window))
        held = self.held_out or max(1, round(config.held_out * cut.count))
        train = cut if self.held_out else cut.times(1 - config.held_out)
        batches = max(1, math.ceil(train.count / config.batch_size))
        steps = config.max_steps or max(1, math.ceil(config.epochs * batches))
        quantize = config.quantize if config.quantize != "auto" else "4bit" if room.gpu else "none"
        return Work(
            shape=self.shape, lengths=train, held_out=held, writes=TASKS[config.task].answers == "text",
            labels=self.labels, device=room.device, quantize=quantize, half=self.half, checkpointing=checkpointing,
            rank=config.rank, targets=config.targets, dora=config.use_dora, batch_size=config.batch_size,
            micro_batch_tokens=config.micro_batch_tokens, evaluations=config.evaluations, steps=steps,
            tokens=steps * train.count / batches * train.mean,
        )  # fmt: skip

    def _disk(self, work: Work) -> dict[str, int]:
        data = Path(self.config.data)
        size = sum(part.stat().st_size for part in parts(data) if part.is_file()) if data.is_file() else 0
        best = 2 if self.config.keep_best or self.config.patience else 1
        return {
            "rows": 2 * min(size, 64_000_000),  # the run's own copy, and the held-out ones in the card
            "prepared": int(self.lengths.count * self.lengths.mean * TOKEN_BYTES),
            "checkpoints": CHECKPOINTS * (CHECKPOINT_BYTES + 4 * (best - 1)) * work.trained,
            "version": 8 * work.trained + LEAST_DISK,  # written beside itself, and renamed
        }


def case(config: TrainConfig, home: Path, lengths: Lengths, labels: int, room: Room) -> Case | None:
    """The case of a configuration; None for a base that is not on this disk or has a shape that is not known."""
    known = shape(config, home)
    return Case(config, known, lengths, labels, room, home) if known else None


def shape(config: TrainConfig, home: Path) -> Shape | None:
    """The shape of the base of a configuration: as it is on this disk, or as the table of bases has it."""
    with suppress(GraftError):
        return of_model(ModelStore(home / "models", offline=True).resolve(config.model))
    listed = base_shapes.named(config.model)
    return listed.shape if listed else None
