"""The time that a run needs, from the floating-point operations of its base and the speed of the machine.

A token costs two operations a parameter that it meets, on the way forward, and as many on the way back: what is frozen
needs no gradient of its own (Kaplan et al., 2020, section 2.1, with LoRA). Attention and the output layer are added.
"""

from __future__ import annotations

from training.estimate.speed import Pace
from training.estimate.training_memory import WRITTEN_ROWS, WRITTEN_TOKENS, Work

TOKENIZED_S = 150_000
"""Tokens that are made ready in a second, read twice and written."""
READ_S = 500e6
"""Bytes of weights that are read and laid out in a second."""
EACH_S = 0.0012
"""Seconds of a layer, learning, that do not depend on how much it computes."""
SLOWER = {"none": 1.0, "8bit": 1.6, "4bit": 1.25}
"""What unpacking a quantized layer costs, beside a plain one."""
LEAST_ROWS = 24
"""Rows that would cost what one step of writing costs, however few are written to: all weights are read for each."""


def operations(work: Work, contenders: int) -> dict[str, float]:
    """Floating-point operations of the training loop, with its evaluations, and of the card."""
    learned = work.lengths.learned if work.writes else 0.0
    out = 2 * work.shape.vocabulary * work.shape.width * learned
    forward = _forward(work)
    times = 3 if work.checkpointing else 2
    lora = 6 * work.trained if work.rank else 0
    looks = work.evaluations * min(100, work.held_out) * work.lengths.mean * (forward + out)
    card = contenders * work.held_out * work.lengths.mean * (forward + out)
    return {
        "train": work.tokens * (times * forward + lora + 2 * out) + looks,
        "evaluate": card + (contenders * _writing(work) if work.writes else 0.0),
    }


def seconds(work: Work, contenders: int, pace: Pace) -> dict[str, float]:
    """Seconds by part: the start with its imports, the rows, the base, learning, the card."""
    needed = operations(work, contenders)
    slower = 1.0 if pace.measured else SLOWER[work.quantize]
    groups = 0.0 if pace.measured else max(work.steps, work.tokens / max(1, work.budget))
    return {
        "start": pace.start_s + work.shape.stored / READ_S + work.lengths.count * work.lengths.mean / TOKENIZED_S,
        "train": slower * needed["train"] / pace.train + groups * work.shape.layers * EACH_S,
        "evaluate": slower * needed["evaluate"] / pace.evaluate,
    }


def _forward(work: Work) -> float:
    """Operations of one token on its way forward, at the usual length."""
    return 2 * work.shape.multiplied + 4 * work.lengths.mean * work.shape.width * work.shape.layers


def _writing(work: Work) -> float:
    """Operations of the answers that one contender writes."""
    rows = min(WRITTEN_ROWS, work.held_out)
    step = 2 * work.shape.multiplied + 2 * work.shape.vocabulary * work.shape.width
    return rows * work.lengths.mean * _forward(work) + WRITTEN_TOKENS * max(rows, LEAST_ROWS) * step
