"""models/transformers_private.py: the undocumented interfaces do what the product takes them to do."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    MinNewTokensLengthLogitsProcessor,
    PreTrainedModel,
    TopPLogitsWarper,
)

from models import transformers_private
from models.loading import linear_paths, load_model
from models.resolve import ModelStore
from tests.conftest import Trained
from tests.helpers import tiny

IDS = torch.arange(4, 14)[None]


@pytest.fixture(scope="module")
def net(llama: Trained) -> Any:
    return load_model(llama.model, "AutoModelForCausalLM")[0]


def test_generation_setup_is_that_of_generate(net: Any) -> None:
    options = {"do_sample": True, "top_p": 0.5, "temperature": 0.7, "min_new_tokens": 3, "max_new_tokens": 5}
    config, processors = transformers_private.generation_setup(net, IDS.shape[1], options)
    assert config.do_sample and config.eos_token_id == net.generation_config.eos_token_id
    kinds = [type(processor) for processor in processors]
    assert kinds[0] is MinNewTokensLengthLogitsProcessor and kinds[-1] is TopPLogitsWarper
    scores = torch.zeros(1, net.config.vocab_size, device=net.device)
    ends = scores.new_tensor([config.eos_token_id], dtype=torch.long).flatten()
    for written, forbidden in ((2, True), (3, False)):  # counted from the prompt's length
        held = torch.zeros(1, IDS.shape[1] + written, dtype=torch.long, device=net.device)
        assert bool(processors[0](held, scores)[0, ends].isinf().all()) == forbidden


def test_models_that_are_loaded_at_the_same_time_leave_later_ones_their_tied_weights(llama: Trained) -> None:
    tie, dtype, path = PreTrainedModel.tie_weights, torch.get_default_dtype(), llama.model.path
    with ThreadPoolExecutor(4) as threads:  # as plugins load theirs
        list(threads.map(lambda _: AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16), range(16)))
    assert PreTrainedModel.tie_weights is tie and torch.get_default_dtype() is dtype


@torch.inference_mode()
def test_a_cache_made_of_layer_states_continues_as_the_one_they_came_from(net: Any) -> None:
    ids, cache = IDS.to(net.device), DynamicCache()
    net(ids[:, :-1], past_key_values=cache, use_cache=True)
    assert transformers_private.has_plain_layers(cache)
    states = transformers_private.layer_states(cache)
    assert len(states) == net.config.num_hidden_layers and states[0][0].shape[:3:2] == (1, IDS.shape[1] - 1)
    copied = transformers_private.make_cache(states)
    found = net(ids[:, -1:], past_key_values=copied, use_cache=True).logits[0, -1]
    torch.testing.assert_close(found, net(ids).logits[0, -1], atol=1e-3, rtol=1e-3)
    assert copied.get_seq_length() == cache.get_seq_length() + 1, "a copy grows by itself"


def test_layers_with_a_sliding_window_are_not_plain(net: Any) -> None:
    config = type(net.config)(**{**net.config.to_dict(), "sliding_window": 4, "layer_types": ["sliding_attention"] * 2})
    assert not transformers_private.has_plain_layers(DynamicCache(config=config))


@pytest.mark.parametrize("quantize", ["none", "8bit", "4bit"])
def test_a_dense_weight_is_the_layers_product_with_unit_vectors(quantize: str, tmp_path: Path) -> None:
    model = ModelStore(tmp_path, offline=True).resolve(str(tiny.make("gpt2", tmp_path / "gpt2")))
    body = load_model(model, "AutoModelForCausalLM", quantize, torch.float32)[0]
    layer = body.get_submodule(linear_paths(body)[0])
    scales = transformers_private.weight_scales(layer.weight)  # a pass moves those of 8 bits
    assert bool(scales) == (quantize != "none") and all(scale.numel() for scale in scales)
    dense = transformers_private.dense_weight(layer)
    unit = torch.eye(dense.shape[1], device=dense.device)
    product = layer(unit.half() if quantize == "8bit" else unit).detach().float() - layer.bias.float()
    torch.testing.assert_close(product, dense.T, atol=0.05 if quantize == "8bit" else 1e-3, rtol=0)


def test_the_switch_of_the_4_bit_layout_is_still_there() -> None:
    from bitsandbytes.nn import Linear4bit

    layer = Linear4bit(8, 8)
    assert hasattr(layer, "support_avx512bf16_for_cpu")
    layer.support_avx512bf16_for_cpu = True
    transformers_private.keep_weight_layout(nn.ModuleList([layer]))
    assert layer.support_avx512bf16_for_cpu is False
