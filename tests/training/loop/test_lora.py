"""training/loop/lora.py and training/worker.py: the layers that are trained, and failures that publish nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from models.resolve import ModelStore, fits
from serving.loaded import Loaded
from store.adapters import WEIGHTS, AdapterStore
from store.files import STAGING_PREFIX
from tasks import TASKS, TabSpec, task_for
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.evaluations import answers_as_peft_does
from tests.helpers.exact import ATOL
from tests.helpers.training_helpers import config_of, run_worker, spec_of, train
from tests.helpers.versions import fill
from training.loop import lora


def assert_nothing_is_left(home: Path) -> None:
    assert not list(home.rglob(f"{STAGING_PREFIX}*")) and AdapterStore(home).versions() == []


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = folder / "model.safetensors"
    held = load_file(path)
    change(held)
    save_file(held, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("family", "layer", "value"),
    [("bert", "layer.1.output.dense.weight", float("nan")), ("llama", "layers.1.mlp.down_proj", float("inf"))],
)
def test_r13_a_loss_that_is_not_finite_fails_the_run(family: str, layer: str, value: float, tmp_path: Path) -> None:
    base = tiny.make(family, tmp_path / family)
    change_weights(base, fill(layer, value))
    result = run_worker(config_of(spec_of(family, base), tmp_path, "diverged"), tmp_path)
    assert result["state"] == "failed"
    assert "diverged" in result["what"] and "lower learning rate" in result["next"]
    assert_nothing_is_left(tmp_path)


@pytest.mark.parametrize(
    ("changed", "error", "what"),
    [
        ("training.loop.lora.verify", OSError(28, "No space left on device"), "The disk is full."),
        ("training.loop.lora.verify", SafetensorError("I/O error: (os error 28)"), "The disk is full."),
        ("training.worker.Trainer.run", MemoryError(), "ran out of memory"),
        ("training.worker.Trainer.run", RuntimeError("not enough memory: you tried to allocate 9 GB"), "out of memory"),
        ("training.worker.Trainer.run", None, "changed nothing"),
    ],
)
def test_r12_r13_r20_a_run_that_fails_says_why_and_publishes_nothing(
    changed: str, error: Exception | None, what: str, bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(*_: Any) -> dict[str, int]:
        if error:
            raise error
        return {"steps": 0}

    monkeypatch.setattr(changed, act)
    result = run_worker(config_of(bert.spec, tmp_path, "fails"), tmp_path)
    assert result["state"] == "failed" and what in result["what"] and result["next"]
    assert_nothing_is_left(tmp_path)


def test_r41_a_run_that_cannot_quantize_fails_before_it_looks_for_its_base(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    asked = []
    monkeypatch.setattr(ModelStore, "resolve", lambda _, id: asked.append(id))
    result = run_worker(config_of(bert.spec, tmp_path, "broken", quantize="4bit"), tmp_path)
    assert "cannot be quantized here" in result["what"] and "without quantization" in result["next"] and asked == []


def build(spec: TabSpec, home: Path, quantize: str = "none", dtype: torch.dtype = torch.float32) -> PeftModel:
    model = ModelStore(home / "models", offline=True).resolve(spec.model)
    task = task_for(spec.task, model.config)
    labels = ["0", "1"] if task.answers == "label" else []
    return lora.build(config_of(spec, home, "built"), task, model, labels, quantize, dtype)


FULL = {"bert": {"classifier"}, "roberta": {"classifier"}, "distilbert": {"pre_classifier", "classifier"}}
"""Modules of the heads that are trained themselves."""


@pytest.mark.parametrize("family", [*FULL, "llama", "gpt2", "t5"])
def test_heads_are_fully_trained_and_linear_layers_by_lora(family: str, tmp_path: Path) -> None:
    net = build(spec_of(family, tiny.make(family, tmp_path / family)), tmp_path)
    config, full = net.peft_config["default"], FULL.get(family, set())
    present = {name.rpartition(".")[2] for name, _ in net.get_base_model().named_modules()}
    assert set(config.modules_to_save or ()) & present == full  # PEFT adds the usual names, there or not
    assert config.target_modules
    assert not any(set(path.split(".")) & {"lm_head", *full} for path in config.target_modules)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or ".modules_to_save." in name for name in trained)


@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_layers_that_the_base_lacks_are_fully_trained_and_served(quantize: str, tmp_path: Path) -> None:
    """BERT files without a pooler are common: it starts at random in each process, so the version must bring it."""
    base = tiny.make("bert", tmp_path / "bert")
    change_weights(base, lambda held: [held.pop(key) for key in [*held] if "pooler" in key])
    spec = spec_of("bert", base)
    version = train(spec, tmp_path, quantize=quantize)
    full = json.loads((version.path / "adapter_config.json").read_text())["modules_to_save"]
    assert {"bert.pooler.dense", "classifier"} <= set(full)
    assert any("pooler.dense.weight" in key for key in load_file(version.path / WEIGHTS))
    model = ModelStore(tmp_path / "models", offline=True).resolve(spec.model)
    for _ in range(2):  # each with another random pooler
        answers_as_peft_does(Loaded(model, "none"), version, ATOL)


@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "llama"])
def test_a_quantized_base_keeps_its_heads_in_full_precision(family: str, quantize: str, tmp_path: Path) -> None:
    net = build(spec_of(family, tiny.make(family, tmp_path / family)), tmp_path, quantize)
    heads = {name for task in TASKS.values() for name in task.head} | {"lm_head"}
    linear = {name: m for name, m in net.named_modules() if isinstance(m, nn.Linear) and "lora_" not in name}
    quantized = {name for name, m in linear.items() if type(m) is not nn.Linear}
    assert quantized, "the body is quantized"
    assert not [name for name in quantized if heads & set(name.split("."))]
    kept = [m for name, m in linear.items() if heads & set(name.split("."))]
    assert kept and all(m.weight.dtype == torch.float32 for m in kept)
    for name, parameter in net.named_parameters():
        if ".modules_to_save." in name or ".lora_" in name:
            assert parameter.dtype == torch.float32 and parameter.requires_grad, name


def test_a_quantized_base_that_is_trained_in_16_bits_has_16_bit_embeddings(tmp_path: Path) -> None:
    net = build(spec_of("bert", tiny.make("bert", tmp_path / "bert")), tmp_path, "4bit", torch.bfloat16)
    assert {module.weight.dtype for module in net.modules() if isinstance(module, nn.Embedding)} == {torch.float16}


def test_rows_longer_than_the_base_reads_are_cut_to_its_window(tmp_path: Path) -> None:
    """GPT-2 has 256 learned positions here; the default longest length is 512."""
    spec = spec_of("gpt2", tiny.make("gpt2", tmp_path / "gpt2"))
    config = config_of(spec, tmp_path, "long", max_length=512)
    rows = [json.loads(line) for line in Path(config.data).read_text().splitlines()]
    long = [{**row, "text": f"{i} " + row["text"] * 40} for i, row in enumerate(rows)]
    Path(config.data).write_text("\n".join(map(json.dumps, long)) + "\n")
    result = run_worker(config, tmp_path)
    assert result["state"] == "done", result
    manifest = AdapterStore(tmp_path).get(result["version"]).manifest
    assert manifest["data"]["truncated"] == manifest["data"]["trained"] > 0


def test_training_continues_from_a_version(trained: Trained) -> None:
    """One tiny step from a version leaves its matrices and head nearly as they were, and its rank and layers."""
    options = {"start_from": trained.first.ref, "max_steps": 1, "learning_rate": 1e-7, "rank": 3}
    version = train(trained.spec, trained.home, "further", **options)
    was, now = (load_file(v.path / WEIGHTS) for v in (trained.first, version))
    assert was.keys() == now.keys()
    assert all(torch.allclose(was[key], now[key], atol=1e-5) for key in was)
    assert any(not torch.equal(was[key], now[key]) for key in was)


def test_training_does_not_continue_with_other_labels_or_another_base(bert: Trained, tmp_path: Path) -> None:
    config = config_of(bert.spec, bert.home, "others", start_from=bert.first.ref)
    rows = Path(config.data).read_text().replace(",1", ",one").replace(",0", ",zero")
    Path(config.data).write_text(rows)
    result = run_worker(config, bert.home)
    assert "cannot be trained on" in result["what"] and "one, zero" in result["why"]
    other = spec_of("bert", tiny.make("bert", tmp_path / "wider", seed=3))
    store = AdapterStore(bert.home)
    assert not fits(store.get(bert.first.ref), ModelStore(tmp_path, offline=True).resolve(other.model))
    result = run_worker(config_of(other, bert.home, "based", start_from=bert.first.ref), bert.home)
    assert "cannot be trained on" in result["what"] and "It was made for" in result["why"]
