"""Each family that people bring: trained two steps, published, served from a slot, equal to PEFT on the same folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from peft import PeftModel

from models.loading import load_model
from models.resolve import Model, ModelStore
from serving.loaded import Loaded
from store.adapters import Version
from tasks import Columns, TabSpec, task_for
from tests.helpers import tiny
from tests.helpers.answers import encode_texts
from tests.helpers.exact import ATOL
from tests.helpers.training_helpers import config_of, run_worker, spec_of, train

TEXTS = ["where is my parcel", "the app crashes on start", "thank you, well done"]
CASES = [(family, "none") for family in tiny.FAMILIES] + [
    (f, "4bit") for f in ("bert", "distilbert", "gpt2", "llama", "t5")
]


def peft_logits(model: Model, version: Version, net: transformers.PreTrainedModel, batch: dict) -> torch.Tensor:
    peft = PeftModel.from_pretrained(net, version.path).eval()
    with torch.inference_mode():
        return peft(**batch).logits


@pytest.mark.parametrize(("family", "quantize"), CASES, ids=[f"{f}-{q}" for f, q in CASES])
def test_trained_version_answers_as_peft_does(family: str, quantize: str, tmp_path: Path) -> None:
    spec = spec_of(family, tiny.make(family, tmp_path / family))
    version = train(spec, tmp_path, quantize=quantize)
    model = ModelStore(tmp_path / "models", offline=True).resolve(spec.model)
    answers_as_peft_does(Loaded(model, "none"), version, atol=ATOL)


def answers_as_peft_does(loaded: Loaded, version: Version, atol: float) -> None:
    """Assert that a slot's logits are those of PEFT on the same folder, and not those of the base."""
    resident, model = loaded.base, loaded.base.model
    task = task_for(version.manifest["task"], model.config)
    head = {"num_labels": len(version.labels), "ignore_mismatched_sizes": True} if version.labels else {}
    net, _ = load_model(model, task.auto_class, resident.quantization, **head)
    batch = dict(resident.tokenizer(TEXTS, padding=True, return_tensors="pt"))
    batch = {k: v.to(resident.device) for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    with resident.slots.pin(version) as slot, torch.inference_mode():
        assert slot is not None
        if version.labels:
            outputs, own = encode_texts(resident, TEXTS, slot)
            ours = slot.head(outputs, own)
        else:
            if net.config.is_encoder_decoder:
                batch["decoder_input_ids"] = batch["input_ids"]
            with resident.slots.using(slot):
                ours = resident.net(**batch).logits
            bare = resident.net(**batch).logits
            assert (ours - bare).abs().max() > 1e-3, "the adapter must act"
    theirs = peft_logits(model, version, net, batch)
    assert torch.allclose(ours, theirs, atol=atol), (ours - theirs).abs().max()


def test_an_encoder_decoder_is_refused_as_a_classifier_before_it_trains(tmp_path: Path) -> None:
    base = tiny.make("t5", tmp_path / "t5")
    spec = TabSpec("classification", str(base), "text-classification", Columns(text="text", target="label"))
    result = run_worker(config_of(spec, tmp_path, "t5"), tmp_path)
    assert result["state"] == "failed" and "encoder-decoder" in result["why"] and "BERT" in result["next"]
    assert not (tmp_path / "runs" / "t5" / "checkpoints").exists()


def test_packing_is_refused_for_an_encoder_decoder_before_it_trains(tmp_path: Path) -> None:
    """The tab's task does not tell: a tab that writes works on decoder-only bases and on these."""
    spec = spec_of("t5", tiny.make("t5", tmp_path / "t5"))
    (tmp_path / "t5" / "model.safetensors").write_bytes(b"not read")
    result = run_worker(config_of(spec, tmp_path, "packed", packing=True), tmp_path)
    assert result["state"] == "failed" and "encoder-decoder" in result["why"] and "decoder-only" in result["next"]
