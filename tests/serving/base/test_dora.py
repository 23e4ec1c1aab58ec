"""slots.py: DoRA from a slot is DoRA as PEFT computes it, for each family and way of holding a base."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from errors import AdapterError
from models.loading import load_model
from models.resolve import Model, ModelStore
from models.transformers_private import dense_weight
from serving.loaded import Loaded
from store.adapters import WEIGHTS
from tasks import TASKS, task_for
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.evaluations import answers_as_peft_does
from tests.helpers.exact import INT8_ATOL
from tests.helpers.training_helpers import spec_of, train
from tests.helpers.versions import calm, config, copy_of, first, tensors
from training.publish.export import merge

FAMILIES = ("bert", "roberta", "distilbert", "gpt2", "llama", "t5")
TEXT = "where is my parcel"


class Base:
    """A tiny base and the version that a run with DoRA made for it."""

    def __init__(self, family: str, home: Path) -> None:
        self.home, self.spec = home, spec_of(family, calm(tiny.make(family, home / family)))
        self.version = train(self.spec, home, name="dora", use_dora=True)
        self.model: Model = ModelStore(home / "models", offline=True).resolve(self.spec.model)
        self.loaded = Loaded(self.model, "none")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    made: dict[str, Base] = {}

    def base(family: str) -> Base:
        if family not in made:
            made[family] = Base(family, tmp_path_factory.mktemp(family))
        return made[family]

    return base


@pytest.mark.parametrize("family", FAMILIES)
def test_a_version_trained_with_dora_answers_as_peft_does(family: str, bases: Callable[[str], Base]) -> None:
    base = bases(family)
    held = load_file(base.version.path / WEIGHTS)
    magnitudes = [key for key in held if key.endswith("lora_magnitude_vector")]
    assert magnitudes and len(magnitudes) == sum("lora_A" in key for key in held)
    answers_as_peft_does(base.loaded, base.version, atol=1e-4)


@pytest.mark.parametrize("resident_at", ["4bit", "8bit"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_dora_scales_the_rows_of_a_quantized_base(family: str, resident_at: str, bases: Callable[[str], Base]) -> None:
    """The norms are those of the weights that the base computes with."""
    base = bases(family)
    atol = INT8_ATOL if resident_at == "8bit" else 1e-4
    answers_as_peft_does(Loaded(base.model, resident_at), base.version, atol=atol)


def test_a_version_trained_with_dora_on_a_4bit_base_is_served(bases: Callable[[str], Base]) -> None:
    base = bases("llama")
    version = train(base.spec, base.home, "qdora", use_dora=True, quantize="4bit")
    answers_as_peft_does(base.loaded, version, atol=1e-4)


@pytest.mark.parametrize("family", ["distilbert", "gpt2"])
def test_a_merged_version_answers_as_the_version(family: str, tmp_path: Path, bases: Callable[[str], Base]) -> None:
    base = bases(family)
    auto = getattr(transformers, _auto(base))
    merged = auto.from_pretrained(merge(base.version, base.model, tmp_path / "merged")).eval()
    head = {"num_labels": len(base.version.labels)} if base.version.labels else {}
    peft = PeftModel.from_pretrained(auto.from_pretrained(base.model.path, **head), base.version.path).eval()
    ids = torch.tensor([[5, 20, 30, 40, 7]])
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, peft(ids).logits, atol=1e-4)


def test_a_run_continues_from_a_version_with_dora(bases: Callable[[str], Base]) -> None:
    base = bases("llama")
    further = train(base.spec, base.home, "on", start_from=base.version.ref, max_steps=1, learning_rate=1e-6)
    was, now = (load_file(v.path / WEIGHTS) for v in (base.version, further))
    assert json.loads((further.path / "adapter_config.json").read_text())["use_dora"] is True
    assert was.keys() == now.keys() and all(torch.allclose(was[key], now[key], atol=1e-4) for key in was)
    assert any(not torch.equal(was[key], now[key]) for key in was if "magnitude" in key)


def key_of(held: dict[str, torch.Tensor]) -> str:
    return first(held, "lora_magnitude_vector")


BAD = {
    "one layer without": (tensors(lambda held: held.pop(key_of(held))), "lacks the magnitudes"),
    "wrong shape": (tensors(lambda held: held.update({key_of(held): torch.ones(3)})), "magnitudes of shape"),
    "not above 0": (tensors(lambda held: held[key_of(held)][:1].fill_(-1.0)), "not above 0"),
    "nan": (tensors(lambda held: held[key_of(held)].fill_(float("nan"))), "not finite"),
    "said to be LoRA": (config(use_dora=False), "does not say DoRA"),
    "another rank": (config(r=5), "has rank 8"),
    "patterns": (config(alpha_pattern={"layers.[01].*": 4}), "only names of layers"),
    "other magnitudes": (tensors(lambda held: [v.mul_(1.5) for k, v in held.items() if "magnitude" in k]), "off by"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_magnitudes_are_refused(fault: str, tmp_path: Path, bases: Callable[[str], Base]) -> None:
    base, (change, reason) = bases("llama"), BAD[fault]
    with (
        pytest.raises(AdapterError, match=reason),
        base.loaded.base.slots.pin(copy_of(base.version, tmp_path, "bad", change)),
    ):
        pass


def test_a_row_without_length_is_refused(tmp_path: Path, bases: Callable[[str], Base]) -> None:
    """Where W + scale * B A is 0 in a row, PEFT would divide by 0 and answer with NaN."""
    base = bases("llama")
    loaded = Loaded(base.model, "none")
    path = next(iter(loaded.base.layers))
    with torch.no_grad():
        loaded.base.layers[path].weight[3] = 0

    def flatten(held: dict[str, torch.Tensor]) -> None:
        held[next(k for k in held if path in k and "lora_B" in k)][3] = 0

    with (
        pytest.raises(AdapterError, match="no length"),
        loaded.base.slots.pin(copy_of(base.version, tmp_path, "flat", tensors(flatten))),
    ):
        pass


def test_the_weight_of_a_quantized_layer_is_read_and_left_as_it_is(llama: Trained) -> None:
    for quantize in ("4bit", "8bit"):
        net, _ = load_model(llama.model, TASKS["causal-lm"].auto_class, quantize)
        plain, _ = load_model(llama.model, TASKS["causal-lm"].auto_class, "none")
        layer = net.get_submodule("model.layers.0.mlp.down_proj")
        before = layer.weight.data.clone()
        dense = dense_weight(layer)
        inputs = torch.eye(layer.in_features, device=net.device)
        assert torch.allclose(dense, (layer(inputs) - layer(0 * inputs)).T, atol=2e-2)
        wanted = plain.get_submodule("model.layers.0.mlp.down_proj").weight
        assert (dense - wanted).norm() / wanted.norm() < (0.15 if quantize == "4bit" else 0.02)
        assert torch.equal(layer.weight.data, before) and layer.weight.device == before.device


def _auto(base: Base) -> str:
    return task_for(base.spec.task, base.model.config).auto_class
