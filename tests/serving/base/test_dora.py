"""slots.py: DoRA from a slot is DoRA as PEFT computes it, for versions that runs have trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

from errors import AdapterError
from serving.loaded import Loaded
from store.adapters import WEIGHTS
from tasks import task_for
from tests.helpers import tiny
from tests.helpers.answers import load
from tests.helpers.evaluations import answers_as_peft_does
from tests.helpers.training_helpers import spec_of, train
from tests.helpers.versions import Tensors, calm, config, copy_of, first, tensors
from training.publish.export import merge

pytestmark = pytest.mark.slow


class Base:
    """A tiny base and the version that a run with DoRA made for it."""

    def __init__(self, family: str, home: Path) -> None:
        self.home, self.spec = home, spec_of(family, calm(tiny.make(family, home / family)))
        self.version = train(self.spec, home, name="dora", use_dora=True)
        self.loaded: Loaded = load(home / family)
        self.model = self.loaded.base.model


@pytest.fixture(scope="module")
def trained_bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Base]:
    return cache(lambda family: Base(family, tmp_path_factory.mktemp(family)))


@pytest.fixture(scope="module")
def base(trained_bases: Callable[[str], Base]) -> Base:
    return trained_bases("llama")


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "gpt2", "llama", "t5"])
def test_a_version_trained_with_dora_answers_as_peft_does(family: str, trained_bases: Callable[[str], Base]) -> None:
    base = trained_bases(family)
    held = load_file(base.version.path / WEIGHTS)
    assert 0 < sum(key.endswith("lora_magnitude_vector") for key in held) == sum("lora_A" in key for key in held)
    answers_as_peft_does(base.loaded, base.version, atol=1e-4)


def test_a_version_trained_with_dora_on_a_4bit_base_is_served(base: Base) -> None:
    version = train(base.spec, base.home, "qdora", use_dora=True, quantize="4bit")
    answers_as_peft_does(base.loaded, version, atol=1e-4)


@pytest.mark.parametrize("family", ["distilbert", "gpt2"])
def test_a_merged_version_answers_as_the_version(
    family: str, tmp_path: Path, trained_bases: Callable[[str], Base]
) -> None:
    base = trained_bases(family)
    auto = getattr(transformers, task_for(base.spec.task, base.model.config).auto_class)
    merged = auto.from_pretrained(merge(base.version, base.model, tmp_path / "merged")).eval()
    head = {"num_labels": len(base.version.labels)} if base.version.labels else {}
    peft = PeftModel.from_pretrained(auto.from_pretrained(base.model.path, **head), base.version.path).eval()
    ids = torch.tensor([[5, 20, 30, 40, 7]])
    with torch.inference_mode():
        assert torch.allclose(merged(ids).logits, peft(ids).logits, atol=1e-4)


def test_a_run_continues_from_a_version_with_dora(base: Base) -> None:
    further = train(base.spec, base.home, "on", start_from=base.version.ref, max_steps=1, learning_rate=1e-6)
    was, now = (load_file(v.path / WEIGHTS) for v in (base.version, further))
    assert json.loads((further.path / "adapter_config.json").read_text())["use_dora"] is True
    assert was.keys() == now.keys() and all(torch.allclose(was[key], now[key], atol=1e-4) for key in was)
    assert any(not torch.equal(was[key], now[key]) for key in was if "magnitude" in key)


def magnitudes(held: Tensors) -> torch.Tensor:
    """Return the magnitudes of the first layer."""
    return held[first(held, "lora_magnitude_vector")]


BAD = {
    "one layer without": (tensors(lambda held: held.pop(first(held, "magnitude"))), "lacks the magnitudes"),
    "wrong shape": (tensors(lambda held: held.update({first(held, "magnitude"): torch.ones(3)})), "of shape"),
    "not above 0": (tensors(lambda held: magnitudes(held)[:1].fill_(-1.0)), "not above 0"),
    "nan": (tensors(lambda held: magnitudes(held).fill_(float("nan"))), "not finite"),
    "said to be LoRA": (config(use_dora=False), "does not say DoRA"),
    "another rank": (config(r=5), "has rank 8"),
    "patterns": (config(alpha_pattern={"layers.[01].*": 4}), "only names of layers"),
    "other magnitudes": (tensors(lambda held: [v.mul_(1.5) for k, v in held.items() if "magnitude" in k]), "off by"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_magnitudes_are_refused(fault: str, tmp_path: Path, base: Base) -> None:
    change, reason = BAD[fault]
    bad = copy_of(base.version, tmp_path, "bad", change)
    with pytest.raises(AdapterError, match=reason), base.loaded.base.slots.pin(bad):
        pass


def test_a_row_without_length_is_refused(tmp_path: Path, base: Base) -> None:
    """Where W + scale * B A is 0 in a row, PEFT would divide by 0 and answer with NaN."""
    loaded = load(base.home / "llama")
    path, layer = next(iter(loaded.base.layers.items()))
    with torch.no_grad():
        layer.weight[3] = 0

    def flatten(held: Tensors) -> None:
        held[next(key for key in held if path in key and "lora_B" in key)][3] = 0

    flat = copy_of(base.version, tmp_path, "flat", tensors(flatten))
    with pytest.raises(AdapterError, match="no length"), loaded.base.slots.pin(flat):
        pass
