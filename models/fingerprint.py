"""Fingerprints of adapters: their effect on a fixed probe, recorded at publishing and compared after every load.

A probe of four tokens runs through the model's body, with the adapter and without (attention over one token alone would
be the same for every query and key). The largest changes of the hidden states and their positions are the fingerprint.

Measured on MiniLM, SmolLM2 and tiny BERT, Llama, GPT-2 and T5, as |loaded - recorded| / |recorded|: 0.00001 in float32,
0.9 to 1.3 for other weights, 1 for no adapter. In bfloat16 or 8bit it is 0.02 to 4.8, because the change may be as
small as the rounding. So values are compared in float32 only; elsewhere an adapter must change something. After
training in bfloat16 on a CPU, the fingerprint is measured in float32 with the weights as they are: the difference is 0
for SmolLM2, whose weights are bfloat16 originally, 0.005 for MiniLM, and 0.1 for a T5 of random weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

PROBE = "The quick brown fox jumps over the lazy dog."
PROBE_TOKENS = 4
PLACES = 16
TOLERANCE = 0.3
"""Largest |loaded - recorded| / |recorded|; see above."""
ROUNDING = 1e-4
"""Relative difference of float32 states between two machines, through all layers."""


def base_key(quantize: str, dtype: torch.dtype) -> str:
    """Return the key of (quantization, dtype); fingerprints are comparable only within one key."""
    return f"{quantize} {str(dtype).removeprefix('torch.')}"


def probe(tokenizer: PreTrainedTokenizerBase, encoder_decoder: bool, device: torch.device) -> dict[str, torch.Tensor]:
    """Return the first tokens of a fixed sentence as a model's inputs, of shape (1, tokens)."""
    ids = torch.tensor([tokenizer(PROBE)["input_ids"][:PROBE_TOKENS]], device=device)
    return {"input_ids": ids, **({"decoder_input_ids": ids} if encoder_decoder else {})}


@torch.inference_mode()
def states(body: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the body's last hidden states for the probe, flat; its logits where its head is inside (T5)."""
    outputs = body(**inputs)
    found: torch.Tensor = outputs.last_hidden_state if hasattr(outputs, "last_hidden_state") else outputs.logits
    return found.float().flatten()


def measure(net: Any, tokenizer: PreTrainedTokenizerBase, quantize: str, dtype: torch.dtype) -> dict[str, Any]:  # noqa: ANN401
    """Return the fingerprint of a PeftModel's active adapter, on a base quantized as `quantize` and run in `dtype`."""
    inputs = probe(tokenizer, net.config.is_encoder_decoder, net.device)
    body = net.get_base_model().base_model
    whole = quantize == "none" and net.device.type == "cpu"
    with _in_float32(body) if whole else torch.autocast(net.device.type, dtype, enabled=dtype != torch.float32):
        adapted = states(body, inputs)
        with net.disable_adapter():
            base = states(body, inputs)
    return fingerprint(base, adapted, base_key(quantize, torch.float32 if whole else dtype))


@contextmanager
def _in_float32(body: nn.Module) -> Iterator[None]:
    """Widen each layer to float32 while it runs, so that there is never a second copy of all weights."""
    kept: dict[nn.Parameter, torch.Tensor] = {}

    def widen(layer: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        for weight in layer.parameters(recurse=False):
            kept[weight] = weight.data
            weight.data = weight.data.float()
        # T5 narrows a layer's input to the type that its weight had before.
        return tuple(a.float() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args)

    def restore(layer: nn.Module, *_: Any) -> None:  # noqa: ANN401
        for weight in layer.parameters(recurse=False):
            weight.data = kept.pop(weight)

    layers = [layer for layer in body.modules() if any(True for _ in layer.parameters(recurse=False))]
    hooks = [layer.register_forward_pre_hook(widen) for layer in layers]
    hooks += [layer.register_forward_hook(restore) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def fingerprint(base: torch.Tensor, adapted: torch.Tensor, key: str) -> dict[str, Any]:
    """Return the manifest's record: the largest change, positions and values of the largest changes, and `key`."""
    change = adapted - base
    at = change.abs().topk(min(PLACES, change.numel())).indices
    values = [float(f"{value:.6g}") for value in change[at].tolist()]
    return {"change": abs(values[0]), "at": at.tolist(), "values": values, "held": key}


def find_mismatch(recorded: Mapping[str, Any] | None, base: torch.Tensor, adapted: torch.Tensor, key: str) -> str:
    """Return a sentence why a loaded adapter cannot be the one that was published; "" if it can."""
    change = adapted - base
    if not change.abs().max().item() > 0:
        return "It changes nothing: its answers to a fixed probe are those of the base."
    if not recorded or recorded["held"] != key or not key.endswith("float32"):
        return ""
    if max(recorded["at"]) >= change.numel():
        return "It was published for a base of another width."
    values = torch.tensor(recorded["values"], device=change.device)
    difference, size = (change[recorded["at"]] - values).norm().item(), values.norm().item()
    if difference <= TOLERANCE * size + ROUNDING * base[recorded["at"]].norm().item() and math.isfinite(difference):
        return ""
    percent = 100 * difference / size
    return f"It does not do what it did when it was published: on a fixed probe it is off by {percent:.0f} %."
