"""Rows put to models, and adapters made by PEFT alone, for tests of what is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from models.loading import load_model
from serving.loaded import Loaded
from store.adapters import WEIGHTS, Version
from tasks import task_for
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.answers import encode_texts
from tests.helpers.training_helpers import bare_config, spec_of
from training.data.tokens import Encoded, encode_rows
from training.loop.lora import head_options
from training.publish.evaluate import Evaluation, Predictions

LABELS = ["late", "great", "odd"]
TEXTS = ["where is my parcel", "the app crashes on start", "thank you, well done"]
MADE: dict[str, dict[str, Any]] = {
    "bert": {"target_modules": ["query", "value"], "use_rslora": True},
    "roberta": {"target_modules": ["query", "value"]},
    "llama": {
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "rank_pattern": {"layers.0.self_attn.q_proj": 2},
        "alpha_pattern": {"down_proj": 3},
    },
    "gpt2": {"target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True},
    "t5": {"target_modules": ["q", "v"]},
}


def made_elsewhere(family: str, base: Path, folder: Path, dtype: torch.dtype = torch.float32, **chosen: Any) -> Path:
    """Write a folder as PEFT writes it, with matrices that change answers; `chosen` are options of its `LoraConfig`."""
    task = task_for(spec_of(family, base).task, {"is_encoder_decoder": family in tiny.ENCODER_DECODERS})
    torch.manual_seed(3)
    head = {"num_labels": len(LABELS)} if task.head else {}
    net = getattr(transformers, task.auto_class).from_pretrained(base, **head)
    heads = [head for head in task.head if head in dict(net.named_children())]
    options = {"r": 4, "lora_alpha": 8, "task_type": task.peft_type, "modules_to_save": heads or None}
    trained = get_peft_model(net, LoraConfig(**options | MADE.get(family, {}) | chosen))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
            elif "magnitude" in name:
                parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
    trained.save_pretrained(folder)
    tensors = load_file(folder / WEIGHTS)
    save_file({key: value.to(dtype) for key, value in tensors.items()}, folder / WEIGHTS)
    return folder


def peft_net(loaded: Loaded, version: Version) -> PeftModel:
    """Load a version by PEFT, on a base of its own that is held as the loaded one."""
    base = loaded.base
    task = task_for(version.manifest["task"], base.model.config)
    net, _ = load_model(base.model, task.auto_class, base.quantization, base.dtype, **head_options(version.labels))
    return PeftModel.from_pretrained(net, version.path).eval()


def answers_as_peft_does(loaded: Loaded, version: Version, atol: float) -> None:
    """Assert that a slot's logits are those of PEFT on the same folder, and not those of the base."""
    base, peft = loaded.base, peft_net(loaded, version)
    batch = dict(base.tokenizer(TEXTS, padding=True, return_tensors="pt"))
    batch = {k: v.to(base.device) for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    if peft.config.is_encoder_decoder:
        batch["decoder_input_ids"] = batch["input_ids"]
    with base.slots.pin(version) as slot, torch.inference_mode():
        assert slot is not None
        theirs = peft(**batch).logits
        if version.labels:
            outputs, own = encode_texts(base, TEXTS, slot)
            ours = slot.head(outputs, own)
        else:
            with base.using(slot):
                ours = base.net(**batch).logits
            assert (ours - base.net(**batch).logits).abs().max() > 1e-3, "the adapter must act"
    assert torch.allclose(ours, theirs, atol=atol), (ours - theirs).abs().max()


def evaluation_of(trained: Trained, rows: list[dict[str, str]], labels: list[str]) -> Evaluation:
    """Encode rows for models on a tiny base."""
    task = "text-classification" if labels else "causal-lm"
    config = bare_config(task, max_length=64, precision="float32", prompt="" if labels else "Sum up: {text}")
    tokenizer = trained.load().base.tokenizer
    return Evaluation(encode_rows(rows, tokenizer, config, labels, task), tokenizer, labels, config)


def rows_alone(targets: list[str], labels: list[str]) -> Evaluation:
    """Make rows with these targets, which can be compared with predictions but not put to a model."""
    rows: list[Any] = [{"text": f"row {i}", "target": target} for i, target in enumerate(targets)]
    task = "text-classification" if labels else "causal-lm"
    return Evaluation(Encoded([], rows, 0), None, labels, bare_config(task))  # type: ignore[arg-type]


def predictions(answers: list[str], *losses: float) -> Predictions:
    """Make answers of one token each, with a loss of 1 unless given."""
    return Predictions(answers, np.array(losses or [1.0] * len(answers)), np.ones(len(answers)))
