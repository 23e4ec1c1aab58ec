"""models/fingerprint.py: a version that does not do what it did when it was published is refused, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from errors import AdapterError
from models import fingerprint
from models.resolve import ModelStore
from serving.loaded import Loaded
from store.adapters import Version
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.exact import ON_GPU
from tests.helpers.training_helpers import spec_of, train
from tests.helpers.versions import copy_of, fill, tensors

BASES = [
    *((family, "none") for family in ("bert", "llama", "distilbert", "gpt2", "t5", "bart")),
    *((family, quantize) for family in ("bert", "llama") for quantize in ("4bit", "8bit")),
]


def load(loaded: Loaded, version: Version) -> None:
    with loaded.base.slots.pin(version):
        pass


def difference(loaded: Loaded, version: Version) -> float:
    """Return the relative difference between the recorded effect of a version and that on a loaded base."""
    recorded = version.manifest["fingerprint"]
    values = torch.tensor(recorded["values"])
    with loaded.base.slots.pin(version) as slot:
        change = (loaded.base._probe_states(slot) - loaded.base._bare_states).cpu()
    return float((change[recorded["at"]] - values).norm() / values.norm())


@pytest.mark.parametrize(("family", "quantize"), BASES)
def test_a_loaded_version_has_the_recorded_effect(family: str, quantize: str, tmp_path: Path) -> None:
    spec = spec_of(family, tiny.make(family, tmp_path / family))
    version = train(spec, tmp_path, quantize=quantize, precision="float32")
    recorded = version.manifest["fingerprint"]
    assert recorded["held"] == f"{quantize} float32"
    assert recorded["change"] == max(map(abs, recorded["values"])) > 0
    loaded = Loaded(ModelStore(tmp_path / "models", offline=True).resolve(spec.model), quantize)
    rounded = ON_GPU and quantize == "8bit"  # LLM.int8 in float16, as `tests.helpers.exact` has it
    assert difference(loaded, version) < (fingerprint.TOLERANCE if rounded else 1e-3)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_fingerprint_of_training_in_bfloat16_is_in_float32(
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


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_r14_other_weights_under_the_same_manifest_are_refused(
    family: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """The hashes are those of the other weights, so that only their effect gives them away."""
    trained: Trained = request.getfixturevalue(family)
    loaded = trained.load()
    swapped = copy_of(trained.second, tmp_path, "swapped", fingerprint=trained.first.manifest["fingerprint"])
    swapped.check_files()
    with pytest.raises(AdapterError, match=r"on a fixed probe it is off by \d+ %"):
        load(loaded, swapped)
    assert loaded.base.slots.loaded == []
    load(loaded, trained.first)
    load(loaded, trained.second)


@pytest.mark.parametrize("quantize", ["none", "4bit", "8bit"])
@pytest.mark.parametrize("recorded", [True, False])
def test_an_adapter_that_changes_nothing_is_refused_on_every_base(
    bert: Trained, tmp_path: Path, quantize: str, recorded: bool
) -> None:
    facts = {} if recorded else {"fingerprint": None}
    loaded = Loaded(bert.model, quantize)
    load(loaded, copy_of(bert.first, tmp_path, "whole", **facts))
    with pytest.raises(AdapterError, match="changes nothing"):
        load(loaded, copy_of(bert.first, tmp_path, "zeroed", tensors(fill("lora_B", 0.0)), **facts))


def test_values_are_compared_in_float32_on_bases_with_the_same_key() -> None:
    base, change = torch.arange(32.0), torch.linspace(-1, 2, 32)
    recorded = fingerprint.fingerprint(base, base + change, "none float32")
    assert recorded["change"] == 2 and recorded["at"][0] == 31 and len(recorded["values"]) == fingerprint.PLACES
    assert fingerprint.find_mismatch(recorded, base, base + change, "none float32") == ""
    assert "off by 200 %" in fingerprint.find_mismatch(recorded, base, base - change, "none float32")
    assert fingerprint.find_mismatch(recorded, base, base - change, "4bit float32") == ""
    half = fingerprint.fingerprint(base, base + change, "none bfloat16")
    assert fingerprint.find_mismatch(half, base, base - change, "none bfloat16") == "", "rounding may be as large"
    assert "another width" in fingerprint.find_mismatch(recorded, base[:9], (base + change)[:9], "none float32")
    assert "off by inf" in fingerprint.find_mismatch(recorded, base, base + change * float("inf"), "none float32")


def test_a_change_of_queries_alone_is_seen_by_the_probe(llama: Trained) -> None:
    """With one token it would not be: its attention is 1 for all queries and keys."""
    loaded = llama.load()
    assert loaded.base._probe["input_ids"].shape == (1, fingerprint.PROBE_TOKENS)
    with loaded.base.slots.pin(llama.first) as slot:
        queries = {path: pair for path, pair in slot.pairs.items() if path.endswith("q_proj")}
        assert queries
        slot.pairs = queries
        assert (loaded.base._probe_states(slot) - loaded.base._bare_states).abs().max() > 0
