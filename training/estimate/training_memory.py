"""Estimate the peak memory of a run by part, from the shape of its base and the lengths of its rows.

Permanent parts are added up: the process with its libraries, the base, the adapter with gradients and the optimizer's
two moments. Of the passing ones the largest counts: a training step, an evaluation, the card, loading the base.
The factors of activations are what autograd keeps of a layer beside LoRA, counted with `saved_tensors_hooks` for BERT,
RoBERTa, DistilBERT, ModernBERT, Llama, Qwen, GPT-2, T5 and BART; the other constants are fitted to real runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tasks import TASKS
from training.config import TrainConfig
from training.estimate.base_shapes import Shape
from training.estimate.lengths import LengthHistogram
from training.estimate.machine import FreeResources

PROCESS = {"cpu": 0.52e9, "cuda": 0.60e9}
"""Bytes of a process with its libraries and no base; on a GPU, the driver's share of its memory."""
QUANTIZING = 0.08e9
"""Bytes of bitsandbytes and of the weights that it unpacks at a time."""
HALVED = 2
"""Bytes of a value of an embedding beside packed layers, unless an output layer shares it."""
SPREAD = {"cpu": 2.0, "cuda": 1.15, "returned": 1.2}
"""Bytes that an allocator holds for each byte in use: the C library's, which ragged rows fragment; that of a GPU; the C
library's with `return_large_blocks`, used with gradient checkpointing."""
KEPT = {"width": 8.15, "inner": 2.05, "gated": 4.05, "weights": 1.0}
"""Values that a layer keeps of a token: factors of its width, its inner width, and heads x length without a kernel."""
KEPT_ACROSS = 14.2
"""The factor of the width for a decoder's layer that attends to an encoder."""
KEPT_DORA = 2.0
"""The factor of the adapted layers' outputs for DoRA, which keeps both parts before scaling."""
PASSING = {"width": 6.0, "inner": 3.0, "weights": 2.0}
"""Factors of the values of a token in a pass that keeps none for gradients."""
LOGITS = 3.0
"""Copies of a learned token's logits in a training step; an evaluation has one less."""
BYTES = {"none": 0.0, "8bit": 1.02, "4bit": 0.53}
"""Bytes of a parameter of a quantized linear layer, with its scales."""
TRAINED_BYTES = 16
"""Bytes of a trained parameter: itself, its gradient, two moments."""
MICRO_BATCH_TOKENS = {("cpu", False): 256, ("cpu", True): 1024, ("cuda", False): 8192, ("cuda", True): 8192}
"""Padded tokens of one pass, by device and whether it computes in 16 bits: the fewest that reach full speed. A CPU
rearranges a 16-bit weight for each product, which only pays for many tokens."""
EVALUATED_ROWS, EVALUATED_TOKENS = 100, 2048
"""Rows of an evaluation on the way, at most, and padded tokens of one of its passes."""
WRITTEN_ROWS, WRITTEN_TOKENS, WRITING_TOKENS = 12, 96, 4096
"""Held-out rows whose answers are written for the card, tokens of an answer, and padded tokens of a batch: many,
because each step reads all weights for any number of rows."""
SHORT = 512
"""Tokens up to which attention without the fused kernel is faster on a CPU."""


@dataclass(frozen=True)
class RunPlan:
    """A run to be estimated: everything that decides its memory."""

    config: TrainConfig
    shape: Shape
    rows: LengthHistogram
    """Lengths of all usable rows, including those to hold out, before the cut to the longest length."""
    labels: int
    available: FreeResources
    held_out: int = 0
    """Number of rows that were held out already; 0 where `rows` include them."""
    checkpointing: bool = False
    """True for gradient checkpointing."""

    @cached_property
    def lengths(self) -> LengthHistogram:
        """Lengths of the rows to train on, cut to the longest length."""
        cut = self.rows.cut(min(self.config.max_length, self.shape.window))
        return cut if self.held_out else cut.times(1 - self.config.held_out)

    @property
    def compared(self) -> int:
        """Number of held-out rows."""
        return self.held_out or max(1, round(self.config.held_out * self.rows.count))

    @property
    def device(self) -> str:
        """Device of the run, cuda or cpu."""
        return "cuda" if self.available.gpu else "cpu"

    @property
    def half(self) -> bool:
        """True where the base computes in 16 bits."""
        precision = self.config.precision
        return precision == "bfloat16" or (precision == "auto" and self.available.bfloat16)

    @property
    def quantize(self) -> str:
        """Quantization of the base: none, 8bit or 4bit."""
        auto = "4bit" if self.available.gpu else "none"
        return auto if self.config.quantize == "auto" else self.config.quantize

    @property
    def budget(self) -> int:
        """Padded tokens of one micro-batch."""
        return self.config.micro_batch_tokens or micro_batch_tokens(self.device, self.half)

    @property
    def writes(self) -> bool:
        """True where answers are texts."""
        return TASKS[self.config.task].answers == "text"

    @property
    def width_bytes(self) -> int:
        """Bytes of a computed value."""
        return 2 if self.half else 4

    @property
    def trained(self) -> int:
        """Number of trained parameters: the LoRA matrices, and a head."""
        chosen = self.shape.chosen(self.config.targets)
        matrices = sum((layer.inputs + layer.outputs) * layer.count for layer in chosen) * self.config.rank
        return matrices + (0 if self.writes else self.shape.width * (self.shape.width + self.labels))

    def at_once(self, budget: int, rows: float) -> float:
        """Return the padded tokens of the largest micro-batch of at most `rows` rows within a budget."""
        longest = self.lengths.longest
        return min(rows * longest, max(budget - budget % longest if budget >= longest else 0, longest))


def micro_batch_tokens(device: str, half: bool) -> int:
    """Return the padded tokens of one pass on a device, in 16 bits or in 32."""
    return MICRO_BATCH_TOKENS.get((device, half), MICRO_BATCH_TOKENS["cpu", half])


def parts(plan: RunPlan) -> dict[str, int]:
    """Return bytes by part; their sum is the peak."""
    spread = SPREAD["returned" if plan.checkpointing and plan.device == "cpu" else plan.device]
    learning = spread * _learning(plan)
    other = spread * max(_evaluating(plan), _writing(plan) if plan.writes else 0.0)
    adapter = TRAINED_BYTES * plan.trained
    loading = _loading(plan) - adapter - max(learning, other)
    found = {
        "process": PROCESS[plan.device] + (QUANTIZING if plan.quantize != "none" else 0.0),
        "base": base_bytes(plan),
        "adapter": adapter,
        "activations": learning,
        "evaluation": max(0.0, other - learning),
        "loading": max(0.0, loading - max(0.0, other - learning)),
    }
    return {name: int(value) for name, value in found.items()}


def base_bytes(plan: RunPlan) -> float:
    """Return the bytes of the base in memory."""
    if plan.quantize == "none":
        return plan.shape.parameters * plan.width_bytes
    words = 0 if plan.writes else plan.shape.vocabulary * plan.shape.width
    plain = plan.shape.parameters - plan.shape.multiplied - words
    return plain * plan.width_bytes + words * HALVED + plan.shape.multiplied * BYTES[plan.quantize]


def _learning(plan: RunPlan) -> float:
    """Bytes of one micro-batch until its gradients are known."""
    shape, size = plan.shape, plan.width_bytes
    tokens = plan.at_once(plan.budget, plan.config.batch_size)
    layer = tokens * _kept(plan) * size
    kept = shape.layers * (tokens * shape.width * size if plan.checkpointing else layer)
    if shape.encoder_decoder:
        answers = tokens * plan.lengths.learned
        across = answers * (_kept(plan) + (KEPT_ACROSS - KEPT["width"]) * shape.width) * size
        kept = shape.layers / 2 * (layer + across) if not plan.checkpointing else kept
    return kept + (layer if plan.checkpointing else layer / 2) + _logits(plan, tokens, LOGITS)


def _kept(plan: RunPlan) -> float:
    """Values that a layer keeps of one token for its gradients."""
    shape = plan.shape
    inner = KEPT["gated" if shape.gated else "inner"] * shape.inner
    adapted = sum(layer.outputs * layer.count for layer in shape.chosen(plan.config.targets)) / shape.layers
    dora = KEPT_DORA * adapted if plan.config.use_dora else 0.0
    return KEPT["width"] * shape.width + inner + KEPT["weights"] * _weights(plan) + dora


def _weights(plan: RunPlan) -> float:
    """Attention weights of a token in one layer; none with the fused kernel."""
    short = plan.device == "cpu" and plan.lengths.longest <= SHORT
    return plan.shape.heads * plan.lengths.longest if short else 0


def _logits(plan: RunPlan, tokens: float, copies: float) -> float:
    return copies * 4 * tokens * plan.lengths.learned * plan.shape.vocabulary if plan.writes else 0.0


def _passing(plan: RunPlan, tokens: float) -> float:
    shape = plan.shape
    values = PASSING["width"] * shape.width + PASSING["inner"] * shape.inner + PASSING["weights"] * _weights(plan)
    return tokens * values * plan.width_bytes


def _evaluating(plan: RunPlan) -> float:
    """Bytes of one pass over validation rows or those of the card."""
    budget = EVALUATED_TOKENS if plan.config.evaluations else plan.budget
    tokens = plan.at_once(budget, min(EVALUATED_ROWS, plan.compared))
    return _passing(plan, tokens) + _logits(plan, tokens, LOGITS - 1)


def _writing(plan: RunPlan) -> float:
    """Bytes of writing the answers to the first held-out rows together: mostly their keys and values."""
    rows = min(WRITTEN_ROWS, plan.compared)
    longest = plan.lengths.longest + WRITTEN_TOKENS
    tokens = min(max(WRITING_TOKENS, longest), rows * longest)
    cache = 2 * 2 * plan.shape.layers * plan.shape.keys * tokens * plan.width_bytes
    return _passing(plan, tokens) + cache


def _loading(plan: RunPlan) -> float:
    """Bytes of the base's files that lie in memory while they are converted; a GPU gets one tensor after the other."""
    as_stored = plan.quantize == "none" and abs(plan.shape.stored - base_bytes(plan)) < 0.1 * plan.shape.stored
    return 0.0 if as_stored or plan.device == "cuda" else float(plan.shape.stored)
