"""training/loop/lora.py and the worker around it: layers that are trained, and failures that publish nothing."""

from __future__ import annotations

import json
import sys
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
from training import worker
from training.loop import lora


def nothing_is_left(home: Path) -> bool:
    return not list(home.rglob(f"{STAGING_PREFIX}*")) and AdapterStore(home).versions() == []


def change_weights(folder: Path, change: Any) -> None:
    path = folder / "model.safetensors"
    held = load_file(path)
    change(held)
    save_file(held, path, metadata={"format": "pt"})


def fill(part: str, value: float) -> Any:
    def change(held: dict[str, torch.Tensor]) -> None:
        keys = [key for key in held if part in key]
        assert keys
        for key in keys:
            held[key] = torch.full_like(held[key], value)

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_r13_a_loss_that_is_no_number_fails_the_run(family: str, value: float, tmp_path: Path) -> None:
    base = tiny.make(family, tmp_path / family)
    change_weights(base, fill("layer.1.output.dense.weight" if family == "bert" else "layers.1.mlp.down_proj", value))
    result = run_worker(config_of(spec_of(family, base), tmp_path, "diverged"), tmp_path)
    assert result["state"] == "failed"
    assert "diverged" in result["what"] and "lower learning rate" in result["next"]
    assert nothing_is_left(tmp_path)


FULL = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError(FULL)])
def test_r20_a_failure_while_publishing_leaves_nothing(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def full(*_: Any) -> None:
        raise error

    monkeypatch.setattr(lora, "verify", full)
    result = run_worker(config_of(bert.spec, tmp_path, "full"), tmp_path)
    assert (result["state"], result["what"]) == ("failed", "The disk is full.")
    assert nothing_is_left(tmp_path)


def test_r13_an_adapter_that_learned_nothing_is_refused(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.Trainer, "run", lambda _: {"steps": 0})
    result = run_worker(config_of(bert.spec, tmp_path, "nothing"), tmp_path)
    assert "changed nothing" in result["what"]
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("not enough memory: you tried to allocate 9 GB")])
def test_r12_out_of_memory_is_told_with_advice(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def exhaust(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(worker.Trainer, "run", exhaust)
    result = run_worker(config_of(bert.spec, tmp_path, "big"), tmp_path)
    assert "ran out of memory" in result["what"] and "smaller batch" in result["next"]


def test_r41_where_nothing_can_be_quantized_a_run_says_so_before_it_looks_for_its_base(
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


WHOLE = {
    "bert": {"classifier"},
    "roberta": {"classifier"},
    "distilbert": {"pre_classifier", "classifier"},
    "llama": set(),
    "gpt2": set(),
    "t5": set(),
}


@pytest.mark.parametrize("family", WHOLE)
def test_heads_are_trained_whole_and_linear_layers_by_lora(family: str, tmp_path: Path) -> None:
    net = build(spec_of(family, tiny.make(family, tmp_path / family)), tmp_path)
    config = net.peft_config["default"]
    present = {name.rpartition(".")[2] for name, _ in net.get_base_model().named_modules()}
    assert set(config.modules_to_save or ()) & present == WHOLE[family]  # PEFT adds the usual names, there or not
    assert config.target_modules
    assert not any(set(path.split(".")) & WHOLE[family] for path in config.target_modules)
    assert not any("lm_head" in path for path in config.target_modules)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    assert all(".lora_" in name or ".modules_to_save." in name for name in trained)


def without_pooler(base: Path) -> Path:
    def drop(held: dict[str, torch.Tensor]) -> None:
        for key in [key for key in held if "pooler" in key]:
            del held[key]

    change_weights(base, drop)
    return base


@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_layers_that_the_base_lacks_are_trained_whole_and_served(quantize: str, tmp_path: Path) -> None:
    """BERT files without a pooler are common: it starts at random in each process, so the version must bring it."""
    spec = spec_of("bert", without_pooler(tiny.make("bert", tmp_path / "bert")))
    version = train(spec, tmp_path, quantize=quantize)
    whole = json.loads((version.path / "adapter_config.json").read_text())["modules_to_save"]
    assert {"bert.pooler.dense", "classifier"} <= set(whole)
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


def test_a_quantized_base_that_is_trained_in_16_bits_has_its_embeddings_in_them(tmp_path: Path) -> None:
    net = build(spec_of("bert", tiny.make("bert", tmp_path / "bert")), tmp_path, "4bit", torch.bfloat16)
    embeddings = [module.weight.dtype for module in net.modules() if isinstance(module, nn.Embedding)]
    assert set(embeddings) == {torch.float16}


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


@pytest.mark.parametrize("trained", ["bert", "llama"])
def test_training_continues_from_a_version(trained: str, request: pytest.FixtureRequest) -> None:
    """One tiny step from a version leaves its matrices where they were, nearly; its head, rank and layers too."""
    found: Trained = request.getfixturevalue(trained)
    version = train(
        found.spec, found.home, "further", start_from=found.first.ref, max_steps=1, learning_rate=1e-7, rank=3
    )
    was, now = (load_file(v.path / WEIGHTS) for v in (found.first, version))
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
