"""The training loop: AdamW (Loshchilov and Hutter, 2019) over micro-batches, with validation and checkpoints.

Unlike the Trainer of transformers, a resumed run has the same weights as an uninterrupted one, and its checkpoints hold
no pickles; the memory of a batch depends on a budget of tokens and not on its longest rows; and the loss is computed
only at learned positions.
"""

from __future__ import annotations

import math
import re
import resource
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.helpers import disable_input_dtype_casting

from errors import RunError
from models.loading import autocast, held_bytes
from store.files import read_if_there
from training.config import TrainConfig
from training.estimate.training_memory import micro_batch_tokens
from training.events import PAUSE, Events
from training.loop import checkpoints
from training.loop.batches import Rows, batches_of_run, collate, micro_batches, pack
from training.loop.losses import summed_loss

CHECKPOINT_S = 120.0
"""Seconds between checkpoints, unless the configuration counts steps."""
STATUS = Path("/proc/self/status")

Validate = Callable[[PeftModel], dict[str, float]]
"""Computes the metrics of a model on validation rows, `loss` among them."""


class Paused(Exception):
    """Raised after the checkpoint of a run that was asked to pause."""

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(f"paused at step {step} of {steps}")
        self.step, self.steps = step, steps


@dataclass
class TrainerState:
    """The state of a run beside its tensors; part of a checkpoint."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    losses: float = 0.0
    """Sum of the losses of all steps."""
    best: float = math.inf
    best_step: int = 0
    worse: int = 0
    """Number of validations since the best one."""
    bound: dict[str, Any] = field(default_factory=dict)
    """Values that must be the same to resume: see `checkpoints.binding`."""


class Trainer:
    """One run over encoded rows; `run` trains `net` in place."""

    def __init__(
        self,
        net: PeftModel,
        rows: Rows,
        pad: int,
        config: TrainConfig,
        folder: Path,
        events: Events,
        data: str,
        validate: Validate,
        dtype: torch.dtype,
    ) -> None:
        """Prepare a run; `pad` is the padding token, `data` the fingerprint of the rows, `dtype` of matrix products."""
        self._net, self._rows, self._pad, self._config = net, rows, pad, config
        self._folder, self._events, self._validate, self._dtype = folder, events, validate, dtype
        self._weights = {name: p for name, p in net.named_parameters() if p.requires_grad}
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self._scaler = torch.amp.GradScaler(net.device.type, enabled=dtype == torch.float16)
        self._widest = int(rows.lengths.max(initial=0))
        self._per_epoch = -(-len(rows) // config.batch_size)
        self._steps = config.max_steps or max(1, math.ceil(config.epochs * self._per_epoch))
        self._budget = config.micro_batch_tokens or micro_batch_tokens(net.device.type, dtype != torch.float32)
        self._best: dict[str, torch.Tensor] = {}
        self._state = TrainerState(bound=checkpoints.binding(config, data))

    def run(self) -> dict[str, float]:
        """Train, from the newest checkpoint if there is one, to the end; returns measurements for the manifest.

        Raises `Paused`, and `RunError` for a loss that is not a number or a checkpoint of another run.
        """
        self._resume()
        self._net.train()
        state, config = self._state, self._config
        began, saved = time.monotonic() - state.seconds, time.monotonic()
        batches = batches_of_run(self._rows.lengths, config.batch_size, config.seed, state.step, self._steps)
        with disable_input_dtype_casting(self._net, active=self._dtype != torch.float32):
            for batch in batches if not self._is_patience_over() else ():
                self._step(batch.tolist())
                state.seconds = time.monotonic() - began
                if self._validate_if_due():
                    break
                if self._is_checkpoint_due(saved):
                    self._save()
                    saved = time.monotonic()
                if (self._folder / PAUSE).exists() and state.step < self._steps:
                    self._save()
                    raise Paused(state.step, self._steps)
        if config.keep_best and self._best:
            self._restore(self._best)
        self._save()
        return {
            "seconds": round(state.seconds, 2),
            "steps": state.step,
            "loss": state.losses / max(1, state.step),
            "tokens": state.tokens,
            "peak_memory": peak_memory(),
            "base_memory": held_bytes(self._net),
            **({"best_step": state.best_step} if config.keep_best and self._best else {}),
        }

    def _step(self, rows: list[int]) -> None:
        """Make one optimizer step over one batch."""
        began, state, config = time.monotonic(), self._state, self._config
        rate = config.learning_rate * schedule_factor(state.step, self._steps, config.warmup, config.schedule)
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = rate
        learned = int(self._rows.learned[np.array(rows)].sum())
        loss, tokens = 0.0, 0
        for group in micro_batches(rows, self._rows.lengths, self._budget):
            examples = [self._rows[row] for row in group]
            batch = pack(examples) if config.packing else collate(examples, self._pad, self._widest)
            batch = {name: tensor.to(self._net.device) for name, tensor in batch.items()}
            with autocast(self._dtype):
                summed, _ = summed_loss(self._net, batch)
            self._scaler.scale(summed / learned).backward()  # type: ignore[no-untyped-call]
            loss += float(summed.detach()) / learned
            tokens += int(self._rows.lengths[np.array(group)].sum())
        self._scaler.unscale_(self._optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self._weights.values(), config.max_grad_norm))
        self._check(loss, norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        state.step, state.losses, state.tokens = state.step + 1, state.losses + loss, state.tokens + tokens
        self._events.emit(
            "step",
            step=state.step,
            steps=self._steps,
            epoch=round(state.step / self._per_epoch, 3),
            loss=round(loss, 6),
            learning_rate=rate,
            grad_norm=round(norm, 4) if math.isfinite(norm) else None,
            tokens_per_s=round(tokens / max(1e-9, time.monotonic() - began), 1),
            memory=peak_memory(),
        )

    def _check(self, loss: float, norm: float) -> None:
        """Raise `RunError` if the loss or gradient is not finite; float16's scaler skips steps with such gradients."""
        if math.isfinite(loss) and (math.isfinite(norm) or self._scaler.is_enabled()):
            return
        raise RunError(
            "The training diverged and was stopped; nothing was published.",
            f"At step {self._state.step + 1} the loss was {loss} and the gradient {norm}.",
            "Try a lower learning rate.",
        )

    def _validate_if_due(self) -> bool:
        """Validate if it is due after this step, and keep the best weights; returns whether to stop early."""
        state = self._state
        if not is_evaluated(state.step, self._steps, self._config.evaluations):
            return False
        metrics = self._validate(self._net)
        self._events.emit("eval", step=state.step, **{name: round(value, 6) for name, value in metrics.items()})
        state.worse += 1
        if metrics["loss"] < state.best:
            state.best, state.best_step, state.worse = metrics["loss"], state.step, 0
            self._best = {name: weight.detach().clone() for name, weight in self._weights.items()}
        return self._is_patience_over()

    def _is_patience_over(self) -> bool:
        """Return whether the last `patience` validations were all worse than the best."""
        return bool(self._config.patience) and self._state.worse >= self._config.patience

    def _is_checkpoint_due(self, saved: float) -> bool:
        every = self._config.checkpoint_steps
        return self._state.step % every == 0 if every else time.monotonic() - saved > CHECKPOINT_S

    def _save(self) -> None:
        tensors = {f"best.{name}": weight for name, weight in self._best.items()}
        for name, weight in self._weights.items():
            tensors[f"weight.{name}"] = weight.detach()
            tensors |= {f"{key}.{name}": value for key, value in self._optimizer.state[weight].items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if torch.cuda.is_available():
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        state = {**vars(self._state), "best": str(self._state.best), "scaler": self._scaler.state_dict()}
        checkpoints.save(self._folder, self._state.step, tensors, state)

    def _resume(self) -> None:
        """Load the newest checkpoint, if there is one."""
        found = checkpoints.load(self._folder, self._state.bound)
        if found is None:
            return
        tensors, state = found
        self._scaler.load_state_dict(state.pop("scaler"))
        self._state = TrainerState(**state | {"best": float(state["best"])})
        self._restore(_part(tensors, "weight"))
        self._best = {name: weight.to(self._net.device) for name, weight in _part(tensors, "best").items()}
        for key in ("step", "exp_avg", "exp_avg_sq"):
            for name, value in _part(tensors, key).items():
                weight = self._weights[name]
                self._optimizer.state[weight][key] = value.to(weight.device)
        torch.set_rng_state(tensors["random.cpu"])
        with suppress(KeyError):
            torch.cuda.set_rng_state(tensors["random.cuda"])
        self._events.emit("resume", step=self._state.step)

    @torch.no_grad()
    def _restore(self, weights: dict[str, torch.Tensor]) -> None:
        for name, weight in weights.items():
            self._weights[name].copy_(weight)


def schedule_factor(step: int, steps: int, warmup: float, schedule: str) -> float:
    """Return the factor of the learning rate at a step from 0: a linear warm-up, then cosine, linear or constant."""
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    done = (step - rising) / max(1, steps - rising)
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[schedule]


def is_evaluated(step: int, steps: int, times: int) -> bool:
    """Return whether a validation follows `step`; `times` of them are evenly spaced, the last after the last step."""
    return times > 0 and step * times // steps > (step - 1) * times // steps


def peak_memory() -> int:
    """Return the peak memory of this process so far, in bytes: of the accelerator if there is one, else main memory.

    Read from `/proc`: psutil has no peak on Linux, and `getrusage` includes the peak of the process that started this.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = re.search(r"^VmHWM:\s*(\d+)", read_if_there(STATUS), re.MULTILINE)
    return 1024 * (int(peak[1]) if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _part(tensors: dict[str, torch.Tensor], key: str) -> dict[str, torch.Tensor]:
    """Return the tensors named `key.<name>`, by name."""
    prefix = f"{key}."
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
