"""models/fingerprint.py: a version that does not do what it did when it was published is refused, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from errors import AdapterError
from models import fingerprint
from models.resolve import ModelStore
from serving.loaded import Loaded
from store.adapters import AdapterStore, Version
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.exact import ON_GPU
from tests.helpers.training_helpers import spec_of, train
from tests.helpers.versions import copy_of, fill, tensors

FAMILIES = ("distilbert", "gpt2", "t5", "bart")


def load(loaded: Loaded, version: Version) -> None:
    with loaded.base.slots.pin(version):
        pass


def found(loaded: Loaded, version: Version) -> torch.Tensor:
    """What the resident sees the version change."""
    resident = loaded.base
    with resident.slots.pin(version) as slot:
        return (resident._probe_states(slot) - resident._bare_states).cpu()


def difference(loaded: Loaded, version: Version) -> float:
    told = version.manifest["fingerprint"]
    values = torch.tensor(told["values"])
    return float((found(loaded, version)[told["at"]] - values).norm() / values.norm())


@pytest.mark.parametrize("quantize", ["none", "4bit", "8bit"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_resident_finds_what_training_told(
    family: str, quantize: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    trained: Trained = request.getfixturevalue(family)
    version = train(trained.spec, tmp_path, quantize=quantize, precision="float32")
    told = version.manifest["fingerprint"]
    assert told["held"] == f"{quantize} float32" and told["change"] == max(map(abs, told["values"])) > 0
    rounded = ON_GPU and quantize == "8bit"  # LLM.int8 in float16, as `tests.helpers.exact` has it
    assert difference(Loaded(trained.model, quantize), version) < (fingerprint.TOLERANCE if rounded else 1e-3)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_training_in_bfloat16_is_told_of_in_float32(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    trained: Trained = request.getfixturevalue(family)
    version = train(trained.spec, tmp_path, precision="bfloat16")
    if ON_GPU:  # which holds what it computes in, and where values are not compared then
        assert version.manifest["fingerprint"]["held"] == "none bfloat16"
        load(trained.load(), version)
    else:
        assert version.manifest["fingerprint"]["held"] == "none float32"
        assert difference(trained.load(), version) < fingerprint.TOLERANCE / 10
    quantized = train(trained.spec, tmp_path, "quantized", precision="bfloat16", quantize="4bit")
    assert quantized.manifest["fingerprint"]["held"] == "4bit bfloat16"
    load(Loaded(trained.model, "4bit"), quantized)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_finds_what_training_told(family: str, tmp_path: Path) -> None:
    spec = spec_of(family, tiny.make(family, tmp_path / family))
    version = train(spec, tmp_path, precision="float32")
    loaded = Loaded(ModelStore(tmp_path / "models", offline=True).resolve(spec.model), "none")
    assert difference(loaded, version) < 1e-3


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_r14_other_weights_under_the_same_manifest_are_refused(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Published with hashes of its own, so that only its effect can give it away."""
    trained: Trained = request.getfixturevalue(family)
    loaded = trained.load()
    told = trained.first.manifest["fingerprint"]
    with AdapterStore(tmp_path).staging() as staging:
        for path in trained.second.path.iterdir():
            if path.name != "manifest.json":
                (staging / path.name).write_bytes(path.read_bytes())
        facts = {k: v for k, v in trained.second.manifest.items() if k not in ("files", "name", "number")}
        swapped = AdapterStore(tmp_path).publish(staging, "swapped", {**facts, "fingerprint": told})
    swapped.check_files()
    with pytest.raises(AdapterError, match=r"on a fixed probe it is off by \d+ %"):
        load(loaded, swapped)
    assert loaded.base.slots.loaded == []
    load(loaded, trained.first)
    load(loaded, trained.second)


@pytest.mark.parametrize("factor", [-1.0, 0.25])
def test_weights_that_were_changed_are_refused(bert: Trained, tmp_path: Path, factor: float) -> None:
    change = tensors(lambda held: [held[key].mul_(factor) for key in held if "lora_B" in key])
    with pytest.raises(AdapterError, match="off by"):
        load(bert.load(), copy_of(bert.first, tmp_path, "scaled", change))


@pytest.mark.parametrize("quantize", ["none", "4bit", "8bit"])
def test_an_adapter_that_was_zeroed_is_refused_on_every_base(bert: Trained, tmp_path: Path, quantize: str) -> None:
    zeroed = copy_of(bert.first, tmp_path, "zeroed", tensors(fill("lora_B", 0.0)))
    with pytest.raises(AdapterError, match="changes nothing"):
        load(Loaded(bert.model, quantize), zeroed)


def test_a_version_without_a_fingerprint_loads_if_it_acts(bert: Trained, tmp_path: Path) -> None:
    def publish(name: str, source: Version) -> Version:
        with AdapterStore(tmp_path).staging() as staging:
            for path in source.path.iterdir():
                if path.name != "manifest.json":
                    (staging / path.name).write_bytes(path.read_bytes())
            old = {k: v for k, v in source.manifest.items() if k not in ("files", "name", "number", "fingerprint")}
            return AdapterStore(tmp_path).publish(staging, name, old)

    loaded = bert.load()
    load(loaded, publish("old", bert.first))
    zeroed = copy_of(bert.first, tmp_path, "zeroed", tensors(fill("lora_B", 0.0)))
    with pytest.raises(AdapterError, match="changes nothing"):
        load(loaded, publish("oldzero", zeroed))


def test_values_are_compared_between_bases_held_alike() -> None:
    base, change = torch.arange(32.0), torch.linspace(-1, 2, 32)
    told = fingerprint.fingerprint(base, base + change, "none float32")
    assert told["change"] == 2 and told["at"][0] == 31 and len(told["values"]) == fingerprint.PLACES
    assert fingerprint.fault(told, base, base + change, "none float32") == ""
    assert "off by 200 %" in fingerprint.fault(told, base, base - change, "none float32")
    assert fingerprint.fault(told, base, base - change, "4bit float32") == ""
    half = fingerprint.fingerprint(base, base + change, "none bfloat16")
    assert fingerprint.fault(half, base, base - change, "none bfloat16") == "", "rounding may be as large"
    assert "another width" in fingerprint.fault(told, base[:9], (base + change)[:9], "none float32")
    assert "off by inf" in fingerprint.fault(told, base, base + change * float("inf"), "none float32")


def test_attention_alone_is_seen_by_the_probe(llama: Trained) -> None:
    """A probe of one token would not: its attention is 1 whatever the queries and keys are."""
    loaded = llama.load()
    assert loaded.base._probe["input_ids"].shape == (1, fingerprint.PROBE_TOKENS)
    with loaded.base.slots.pin(llama.first) as slot:
        queries = {path: pair for path, pair in slot.pairs.items() if path.endswith("q_proj")}
        assert queries
        slot.pairs = queries
        assert (loaded.base._probe_states(slot) - loaded.base._bare_states).abs().max() > 0
