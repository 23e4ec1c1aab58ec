"""The memory that a run needs at its worst moment, by part, from the shape of its base and the lengths of its rows.

What stays all the time is added up: the process with its libraries, the base, the adapter with its gradients and the
optimizer's two moments. What comes and goes is not there at once, so the largest of it counts: a step of learning, a
look at validation rows, the card, the loading of the base. The numbers of an activation are those that autograd
keeps of a layer beside LoRA, counted with `saved_tensors_hooks` for BERT, RoBERTa, DistilBERT, ModernBERT, Llama,
Qwen, GPT-2, T5 and BART; the other constants are fitted to real runs by `python -m bench estimate`, which compares what
comes of them with such runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training.estimate.base_shapes import Shape
from training.estimate.lengths import Lengths

PROCESS = {"cpu": 0.52e9, "cuda": 0.60e9}
"""Bytes of a run that has loaded its libraries and no base; on a GPU, what the driver takes of it."""
QUANTIZING = 0.08e9
"""Bytes of the library that packs weights, and of what it unpacks them into."""
HALVED = 2
"""Bytes of a value of an embedding beside packed layers, unless an output layer shares it."""
SPREAD = {"cpu": 2.0, "cuda": 1.15, "returned": 1.2}
"""What an allocator holds for each byte that was asked for: the C library's, which ragged rows tear, that of a GPU, and
the C library's where it returns large blocks, as it is told to where gradient checkpointing asks for little memory."""
KEPT = {"width": 8.15, "inner": 2.05, "gated": 4.05, "weights": 1.0}
"""Values that a layer keeps of a token: times its width, its inner width, and heads times length without the kernel."""
KEPT_ACROSS = 14.2
"""The same, times the width, of a decoder's layer that looks at an encoder."""
KEPT_DORA = 2.0
"""The same, times the outputs of the layers that LoRA adapts, of DoRA: both of their parts before they are scaled."""
PASSING = {"width": 6.0, "inner": 3.0, "weights": 2.0}
"""Values of a token that are there at once where nothing is kept for learning."""
LOGITS = 3.0
"""Copies of the logits of a learned token while its loss is learned from; one less where it is only looked at."""
BYTES = {"none": 0.0, "8bit": 1.02, "4bit": 0.53}
"""Of a parameter of a quantized linear layer, with its scales."""
TRAINED_BYTES = 16
"""Of a parameter that learns: itself, its gradient, two moments."""
MICRO_BATCH_TOKENS = {("cpu", False): 256, ("cpu", True): 1024, ("cuda", False): 8192, ("cuda", True): 8192}
"""Padded tokens that go through a model at once, by device and whether it computes in 16 bits: as few as are computed
at full speed. A CPU rearranges a weight of 16 bits for each product, which many tokens have to pay for."""
LOOK_TOKENS, LOOK_ROWS = 2048, 100
WRITING_TOKENS, WRITTEN_ROWS, WRITTEN_TOKENS = 4096, 12, 96
SHORT = 512
"""As `training.loop.validation`, `training.publish.evaluate` and `training.loop.lora` have them; a test compares."""


@dataclass(frozen=True)
class Work:
    """What is asked of a base, with every `auto` made definite."""

    shape: Shape
    lengths: Lengths
    """Of the rows to train on, none longer than the run allows."""
    held_out: int
    """Rows that make the card."""
    writes: bool
    """Whether answers are texts."""
    labels: int
    device: str
    """cpu or cuda."""
    quantize: str
    half: bool
    """Whether it computes in 16 bits."""
    checkpointing: bool
    rank: int
    targets: str
    dora: bool
    batch_size: int
    micro_batch_tokens: int
    evaluations: int
    steps: int
    tokens: float
    """That are learned from in all steps."""

    @property
    def width_bytes(self) -> int:
        """Bytes of a value that is computed."""
        return 2 if self.half else 4

    @property
    def trained(self) -> int:
        """Parameters that learn: the LoRA matrices, and a head."""
        chosen = self.shape.chosen(self.targets)
        matrices = sum((layer.inputs + layer.outputs) * layer.count for layer in chosen) * self.rank
        return matrices + (0 if self.writes else self.shape.width * (self.shape.width + self.labels))

    @property
    def budget(self) -> int:
        """Tokens that go through the model at once."""
        return self.micro_batch_tokens or micro_batch_tokens(self.device, self.half)

    def at_once(self, budget: int, rows: float) -> float:
        """Padded tokens of the largest group of so many rows within a budget."""
        longest = self.lengths.longest
        return min(rows * longest, max(budget - budget % longest if budget >= longest else 0, longest))


def micro_batch_tokens(device: str, half: bool) -> int:
    """Padded tokens that go through a model at once on a device, in 16 bits or in 32."""
    return MICRO_BATCH_TOKENS.get((device, half), MICRO_BATCH_TOKENS["cpu", half])


def parts(work: Work) -> dict[str, int]:
    """Bytes by part; their sum is the most that the run holds at once."""
    spread = SPREAD["returned" if work.checkpointing and work.device == "cpu" else work.device]
    learning = spread * _learning(work)
    other = spread * max(_looking(work), _writing(work) if work.writes else 0.0)
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


def base_bytes(work: Work) -> float:
    """Of the base as it is held."""
    if work.quantize == "none":
        return work.shape.parameters * work.width_bytes
    words = 0 if work.writes else work.shape.vocabulary * work.shape.width
    plain = work.shape.parameters - work.shape.multiplied - words
    return plain * work.width_bytes + words * HALVED + work.shape.multiplied * BYTES[work.quantize]


def _learning(work: Work) -> float:
    """What one group of a step keeps until its gradients are known, and what computing them takes besides."""
    shape, size = work.shape, work.width_bytes
    tokens = work.at_once(work.budget, work.batch_size)
    layer = tokens * _kept(work) * size
    kept = shape.layers * (tokens * shape.width * size if work.checkpointing else layer)
    if shape.encoder_decoder:
        answers = tokens * work.lengths.learned
        across = answers * (_kept(work) + (KEPT_ACROSS - KEPT["width"]) * shape.width) * size
        kept = shape.layers / 2 * (layer + across) if not work.checkpointing else kept
    return kept + (layer if work.checkpointing else layer / 2) + _logits(work, tokens, LOGITS)


def _kept(work: Work) -> float:
    """Values that a layer keeps of one token."""
    shape = work.shape
    inner = KEPT["gated" if shape.gated else "inner"] * shape.inner
    adapted = sum(layer.outputs * layer.count for layer in shape.chosen(work.targets)) / shape.layers
    return KEPT["width"] * shape.width + inner + KEPT["weights"] * _weights(work) + KEPT_DORA * work.dora * adapted


def _weights(work: Work) -> float:
    """Weights of attention that a token has in one layer, where they are computed one by one."""
    short = work.device == "cpu" and work.lengths.longest <= SHORT
    return work.shape.heads * work.lengths.longest if short else 0


def _logits(work: Work, tokens: float, copies: float) -> float:
    return copies * 4 * tokens * work.lengths.learned * work.shape.vocabulary if work.writes else 0.0


def _passing(work: Work, tokens: float) -> float:
    shape = work.shape
    values = PASSING["width"] * shape.width + PASSING["inner"] * shape.inner + PASSING["weights"] * _weights(work)
    return tokens * values * work.width_bytes


def _looking(work: Work) -> float:
    """What validation rows, or those of the card, take in one pass."""
    budget = LOOK_TOKENS if work.evaluations else work.budget
    tokens = work.at_once(budget, min(LOOK_ROWS, work.held_out))
    return _passing(work, tokens) + _logits(work, tokens, LOGITS - 1)


def _writing(work: Work) -> float:
    """What answers to the first held-out rows take, written together: their keys and values above all."""
    rows = min(WRITTEN_ROWS, work.held_out)
    tokens = min(max(WRITING_TOKENS, work.lengths.longest + WRITTEN_TOKENS),
                 rows * (work.lengths.longest + WRITTEN_TOKENS))  # fmt: skip
    cache = 2 * 2 * work.shape.layers * work.shape.keys * tokens * work.width_bytes
    return _passing(work, tokens) + cache


def _loading(work: Work) -> float:
    """What reading the base takes besides: its files, where what is held is not the same bytes as they have."""
    same = work.quantize == "none" and abs(work.shape.stored - base_bytes(work)) < 0.1 * work.shape.stored
    return 0.0 if same else float(work.shape.stored)


def largest(found: Mapping[str, int]) -> str:
    """The part that needs most, of those that a setting can change."""
    return max((name for name in found if name != "process"), key=lambda name: found[name])
