"""The peak memory of a run, by part, from the shape of its base and the lengths of its rows.

What stays all the time is added up: the process with its libraries, the base, the adapter with its gradients and the
optimizer's two moments. Of what comes and goes, the largest counts: a training step, an evaluation, the card, loading
the base. The numbers of an activation are those that autograd keeps of a layer beside LoRA, counted with
`saved_tensors_hooks` for BERT, RoBERTa, DistilBERT, ModernBERT, Llama, Qwen, GPT-2, T5 and BART; the other constants
are fitted to real runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks import TASKS
from training.config import TrainConfig
from training.estimate.base_shapes import Shape
from training.estimate.lengths import LengthHistogram

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
"""Held-out rows whose answers are written for the card, tokens of an answer, and padded tokens of a batch: a large one,
because each step reads all weights for any number of rows."""
SHORT = 512
"""Tokens up to which attention without the fused kernel is faster on a CPU."""


@dataclass(frozen=True)
class Workload:
    """Everything that decides the memory of a run, with every `auto` resolved."""

    config: TrainConfig
    shape: Shape
    lengths: LengthHistogram
    """Of the rows to train on, cut to the longest length."""
    held_out: int
    """Rows of the card."""
    labels: int
    device: str
    """cpu or cuda."""
    quantize: str
    half: bool
    """Whether the base computes in 16 bits."""
    checkpointing: bool
    """Whether gradient checkpointing is on."""
    budget: int
    """Padded tokens of one pass."""

    @property
    def writes(self) -> bool:
        """Return whether answers are texts."""
        return TASKS[self.config.task].answers == "text"

    @property
    def width_bytes(self) -> int:
        """Bytes of a computed value."""
        return 2 if self.half else 4

    @property
    def trained(self) -> int:
        """Trained parameters: the LoRA matrices, and a head."""
        chosen = self.shape.chosen(self.config.targets)
        matrices = sum((layer.inputs + layer.outputs) * layer.count for layer in chosen) * self.config.rank
        return matrices + (0 if self.writes else self.shape.width * (self.shape.width + self.labels))

    def at_once(self, budget: int, rows: float) -> float:
        """Return the padded tokens of the largest group of at most `rows` rows within a budget."""
        longest = self.lengths.longest
        return min(rows * longest, max(budget - budget % longest if budget >= longest else 0, longest))


def micro_batch_tokens(device: str, half: bool) -> int:
    """Return the padded tokens of one pass on a device, in 16 bits or in 32."""
    return MICRO_BATCH_TOKENS.get((device, half), MICRO_BATCH_TOKENS["cpu", half])


def parts(work: Workload) -> dict[str, int]:
    """Return bytes by part; their sum is the peak."""
    spread = SPREAD["returned" if work.checkpointing and work.device == "cpu" else work.device]
    learning = spread * _learning(work)
    other = spread * max(_evaluating(work), _writing(work) if work.writes else 0.0)
    adapter = TRAINED_BYTES * work.trained
    loading = _loading(work) - adapter - max(learning, other)
    found = {
        "process": PROCESS[work.device] + (QUANTIZING if work.quantize != "none" else 0.0),
        "base": base_bytes(work),
        "adapter": adapter,
        "activations": learning,
        "evaluation": max(0.0, other - learning),
        "loading": max(0.0, loading - max(0.0, other - learning)),
    }
    return {name: int(value) for name, value in found.items()}


def base_bytes(work: Workload) -> float:
    """Return the bytes of the base in memory."""
    if work.quantize == "none":
        return work.shape.parameters * work.width_bytes
    words = 0 if work.writes else work.shape.vocabulary * work.shape.width
    plain = work.shape.parameters - work.shape.multiplied - words
    return plain * work.width_bytes + words * HALVED + work.shape.multiplied * BYTES[work.quantize]


def _learning(work: Workload) -> float:
    """Bytes of one micro-batch until its gradients are known."""
    shape, size = work.shape, work.width_bytes
    tokens = work.at_once(work.budget, work.config.batch_size)
    layer = tokens * _kept(work) * size
    kept = shape.layers * (tokens * shape.width * size if work.checkpointing else layer)
    if shape.encoder_decoder:
        answers = tokens * work.lengths.learned
        across = answers * (_kept(work) + (KEPT_ACROSS - KEPT["width"]) * shape.width) * size
        kept = shape.layers / 2 * (layer + across) if not work.checkpointing else kept
    return kept + (layer if work.checkpointing else layer / 2) + _logits(work, tokens, LOGITS)


def _kept(work: Workload) -> float:
    """Values that a layer keeps of one token for its gradients."""
    shape = work.shape
    inner = KEPT["gated" if shape.gated else "inner"] * shape.inner
    adapted = sum(layer.outputs * layer.count for layer in shape.chosen(work.config.targets)) / shape.layers
    return (
        KEPT["width"] * shape.width
        + inner
        + KEPT["weights"] * _weights(work)
        + KEPT_DORA * work.config.use_dora * adapted
    )


def _weights(work: Workload) -> float:
    """Attention weights of a token in one layer; none with the fused kernel."""
    short = work.device == "cpu" and work.lengths.longest <= SHORT
    return work.shape.heads * work.lengths.longest if short else 0


def _logits(work: Workload, tokens: float, copies: float) -> float:
    return copies * 4 * tokens * work.lengths.learned * work.shape.vocabulary if work.writes else 0.0


def _passing(work: Workload, tokens: float) -> float:
    shape = work.shape
    values = PASSING["width"] * shape.width + PASSING["inner"] * shape.inner + PASSING["weights"] * _weights(work)
    return tokens * values * work.width_bytes


def _evaluating(work: Workload) -> float:
    """Bytes of one pass over validation rows or those of the card."""
    budget = EVALUATED_TOKENS if work.config.evaluations else work.budget
    tokens = work.at_once(budget, min(EVALUATED_ROWS, work.held_out))
    return _passing(work, tokens) + _logits(work, tokens, LOGITS - 1)


def _writing(work: Workload) -> float:
    """Bytes of writing the answers to the first held-out rows together: mostly their keys and values."""
    rows = min(WRITTEN_ROWS, work.held_out)
    longest = work.lengths.longest + WRITTEN_TOKENS
    tokens = min(max(WRITING_TOKENS, longest), rows * longest)
    cache = 2 * 2 * work.shape.layers * work.shape.keys * tokens * work.width_bytes
    return _passing(work, tokens) + cache


def _loading(work: Workload) -> float:
    """Bytes of the base's files, where they are converted while they are read."""
    same = work.quantize == "none" and abs(work.shape.stored - base_bytes(work)) < 0.1 * work.shape.stored
    return 0.0 if same else float(work.shape.stored)
