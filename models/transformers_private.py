"""Wrap undocumented interfaces of transformers and bitsandbytes, each used in this module alone.

Either library may change one in any release; `tests/models/test_transformers_private.py` shows which.

| interface | used for |
|---|---|
| `PreTrainedModel.from_pretrained`, replaced | loading one model at a time, whoever loads it |
| `_prepare_generation_config`, `_prepare_special_tokens`, `_get_logits_processor` | sampling outside of `generate` |
| `DynamicCache.layers`, `DynamicLayer.keys` and `.values` | moving rows between key-value caches |
| `Linear4bit.support_avx512bf16_for_cpu` | keeping 4-bit weights in the layout they were quantized in |
| `Params4bit.quant_state`, `Int8Params.SCB` and the functions that read them | sizes and values of quantized weights |
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.pytorch_utils import Conv1D

LayerState = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of one layer, each of shape (rows, heads, tokens, width)."""
_LOADING = threading.RLock()


def _load_one_at_a_time() -> None:
    """Let every `from_pretrained` of this process, also of a plugin's own `load()`, wait for the one before it.

    While it loads, transformers replaces `PreTrainedModel.tie_weights` and torch's default type for all threads. Of two
    loads at a time one takes the other's replacement for the original and restores that, so that the tied weights of
    this and of all later models stay uninitialized. Models that are made by `from_config` do not wait.
    """
    load = PreTrainedModel.from_pretrained.__func__

    @functools.wraps(load)
    def from_pretrained(cls: type[PreTrainedModel], *values: Any, **named: Any) -> Any:  # noqa: ANN401 - as there
        with _LOADING:
            return load(cls, *values, **named)

    PreTrainedModel.from_pretrained = classmethod(from_pretrained)


_load_one_at_a_time()


def generation_setup(
    net: Any,  # noqa: ANN401 - a transformers model
    prompt_tokens: int,
    options: Mapping[str, Any],
) -> tuple[GenerationConfig, LogitsProcessorList]:
    """Return the configuration and the logits processors that `net.generate` would use with `options`.

    `prompt_tokens` is the length of the prompt, which processors of a minimum length count from.
    """
    config, _ = net._prepare_generation_config(None, **options)
    net._prepare_special_tokens(config, True, device=net.device)
    processors: LogitsProcessorList = net._get_logits_processor(
        config, input_ids_seq_length=prompt_tokens, device=net.device, model_kwargs={}
    )
    return config, processors


def layer_states(cache: DynamicCache) -> list[LayerState]:
    """Return the keys and values of each layer, without copying them."""
    return [(layer.keys, layer.values) for layer in cache.layers]


def make_cache(states: Sequence[LayerState]) -> DynamicCache:
    """Make a cache that holds copies of the keys and values of each layer."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(states):
        cache.update(keys, values, layer)
    return cache


def has_plain_layers(cache: DynamicCache) -> bool:
    """Return whether every layer holds keys and values of all tokens: no sliding window, no recurrent state."""
    return all(type(layer) is DynamicLayer for layer in cache.layers)


def keep_weight_layout(net: nn.Module) -> None:
    """Keep 4-bit weights in the layout they were quantized in.

    On CPUs with bfloat16 instructions bitsandbytes rearranges them in the first pass without gradients. The product for
    that layout has no gradient, always returns bfloat16, and takes two to three times as long for a batch; and code
    that reads the weights afterwards, to merge them or for DoRA's norms, would read them in the wrong order.
    """
    for module in net.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def weight_scales(weight: torch.Tensor) -> list[torch.Tensor]:
    """Return the scales of a quantized weight, which may be quantized themselves; nothing for any other weight."""
    state = getattr(weight, "quant_state", None)
    holders = [(weight, ("SCB",)), *((one, ("absmax", "code")) for one in (state, getattr(state, "state2", None)))]
    scales = [getattr(holder, name, None) for holder, names in holders for name in names]
    return [tensor for tensor in scales if isinstance(tensor, torch.Tensor)]


@torch.no_grad()
def dense_weight(module: nn.Module) -> torch.Tensor:
    """Return the weight of a linear layer as (outputs, inputs) in float32; a quantized one is left as it is."""
    weight: Any = module.weight
    if type(weight).__name__ == "Params4bit":
        dense: torch.Tensor = bitsandbytes_functional().dequantize_4bit(weight.data, weight.quant_state)
    elif type(weight).__name__ == "Int8Params":
        state: Any = module.state
        # Before the first pass the scales of rows lie with the weight.
        scales = state.SCB if weight.SCB is None else weight.SCB
        dense = bitsandbytes_functional().int8_vectorwise_dequant(weight.data, scales)
    else:
        dense = weight.T if isinstance(module, Conv1D) else weight
    return dense.float()


def bitsandbytes_functional() -> Any:  # noqa: ANN401 - a module
    """Import bitsandbytes, which takes seconds and is needed for quantized bases alone."""
    import bitsandbytes  # noqa: PLC0415

    return bitsandbytes.functional
