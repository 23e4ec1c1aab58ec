"""Each family that people bring: trained two steps, published, served from a slot, equal to PEFT on the same folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.resolve import ModelStore
from serving.loaded import Loaded
from tasks import Columns, TabSpec
from tests.helpers import tiny
from tests.helpers.evaluations import answers_as_peft_does
from tests.helpers.exact import ATOL
from tests.helpers.training_helpers import config_of, run_worker, spec_of, train

pytestmark = pytest.mark.slow

QUANTIZED = ("bert", "distilbert", "gpt2", "llama", "t5")
CASES = [*((family, "none") for family in tiny.FAMILIES), *((family, "4bit") for family in QUANTIZED)]


@pytest.mark.parametrize(("family", "quantize"), CASES, ids=[f"{f}-{q}" for f, q in CASES])
def test_trained_version_answers_as_peft_does(family: str, quantize: str, tmp_path: Path) -> None:
    spec = spec_of(family, tiny.make(family, tmp_path / family))
    version = train(spec, tmp_path, quantize=quantize)
    model = ModelStore(tmp_path / "models", offline=True).resolve(spec.model)
    answers_as_peft_does(Loaded(model, "none"), version, atol=ATOL)


def test_an_encoder_decoder_is_refused_as_a_classifier_and_for_packing_before_it_trains(tmp_path: Path) -> None:
    """The tab's task does not forbid packing: a tab that writes works on decoder-only bases and on these."""
    base = tiny.make("t5", tmp_path / "t5")
    labels = TabSpec("classification", str(base), "text-classification", Columns(text="text", target="label"))
    refused = run_worker(config_of(labels, tmp_path, "labels"), tmp_path)
    assert refused["state"] == "failed" and "encoder-decoder" in refused["why"] and "BERT" in refused["next"]
    (base / "model.safetensors").write_bytes(b"not read")
    refused = run_worker(config_of(spec_of("t5", base), tmp_path, "packed", packing=True), tmp_path)
    assert refused["state"] == "failed" and "encoder-decoder" in refused["why"] and "decoder-only" in refused["next"]
    assert not list(tmp_path.glob("runs/*/checkpoints"))
