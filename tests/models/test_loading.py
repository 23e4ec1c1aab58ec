"""models/loading.py: memory that a base needs and holds, and its embeddings in 16 bits."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from errors import ModelError
from models import loading
from models.loading import halve_embeddings, held_bytes, load_model, require_memory
from models.resolve import Model, ModelStore
from tests.conftest import Trained
from tests.helpers import tiny

FAMILIES = ("bert", "roberta", "distilbert", "gpt2", "t5", "llama")


def resolved(family: str, folder: Path) -> Model:
    return ModelStore(folder, offline=True).resolve(str(tiny.make(family, folder / family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_with_halved_embeddings_answers_nearly_the_same(family: str, tmp_path: Path) -> None:
    net = load_model(resolved(family, tmp_path), "AutoModel")[0].requires_grad_(requires_grad=False)
    ids = torch.arange(4, 20, device=net.device).view(2, 8)
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if net.config.is_encoder_decoder else {})}
    with torch.inference_mode():
        before, size = net(**inputs).last_hidden_state, held_bytes(net)
    words = net.get_input_embeddings().weight.numel()
    shared = sum(p is net.get_input_embeddings().weight for m in net.modules() for p in m.parameters(recurse=False)) > 1
    count = halve_embeddings(net)
    with torch.inference_mode():
        after = net(**inputs).last_hidden_state
    assert after.dtype == before.dtype == net.dtype == torch.float32
    torch.testing.assert_close(after, before, atol=5e-3, rtol=5e-3)
    if shared:
        assert net.get_input_embeddings().weight.dtype == torch.float32
    else:
        assert count > 0 and not torch.equal(after, before)
        assert size - held_bytes(net) >= 2 * words


def test_embeddings_that_are_shared_or_too_large_stay_in_float32(tmp_path: Path) -> None:
    tied = nn.ModuleDict({"words": nn.Embedding(9, 4), "out": nn.Linear(4, 9, bias=False)})
    tied["out"].weight = tied["words"].weight
    large = nn.Embedding(9, 4)
    large.weight.data[0, 0] = 1e5
    assert halve_embeddings(tied) == halve_embeddings(large) == 0
    assert tied["words"].weight.dtype == large.weight.dtype == torch.float32


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_a_quantized_base_has_halved_embeddings_and_counts_its_scales(quantize: str, tmp_path: Path) -> None:
    model = resolved("bert", tmp_path)
    plain, net = (
        load_model(model, "AutoModel", how)[0].requires_grad_(requires_grad=False) for how in ("none", quantize)
    )
    assert net.get_input_embeddings().weight.dtype == torch.float16
    assert plain.get_input_embeddings().weight.dtype == torch.float32
    weights = sum(p.nbytes for p in net.parameters())
    assert weights < held_bytes(net) < 0.6 * held_bytes(plain), "scales and buffers count, too"


@pytest.mark.parametrize(
    ("quantize", "width", "least"), [("none", 4, 4), ("none", 2, 2), ("8bit", 4, 1), ("4bit", 2, 0.5)]
)
def test_a_base_is_refused_where_its_weights_do_not_fit(
    quantize: str, width: int, least: float, bert: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "MEMORY_RESERVE", 0)
    weights = (bert.model.path / "model.safetensors").stat().st_size // 4
    require_memory(bert.model, quantize, width, int(2 * least * weights))
    with pytest.raises(ModelError, match=f"no room for {bert.model.id}"):
        require_memory(bert.model, quantize, width, int(0.9 * least * weights))
