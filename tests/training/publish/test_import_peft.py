"""training/publish/import_peft.py: adapters made by PEFT alone answer in a server as in PEFT, or are refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from errors import AdapterError
from models.resolve import ModelStore
from serving.loaded import Loaded
from settings import Settings
from store.adapters import WEIGHTS, AdapterStore, Version
from store.archive import pack
from tasks import TabSpec
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.evaluations import LABELS, answers_as_peft_does, made_elsewhere
from tests.helpers.training_helpers import spec_of
from training.__main__ import main
from training.publish.import_peft import import_adapter

pytestmark = pytest.mark.slow


class Bench:
    """A base of one family, an adapter that PEFT made for it, and an empty home."""

    def __init__(self, family: str, tmp: Path, **chosen: Any) -> None:
        self.spec: TabSpec = spec_of(family, tiny.make(family, tmp / family))
        self.settings = Settings(home=tmp / "home", shipped=tmp / "none", quantize="none")
        self.folder = made_elsewhere(family, tmp / family, tmp / "theirs", **chosen)
        self.store = AdapterStore(self.settings.home)

    def configure(self, **changes: Any) -> None:
        path = self.folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    def publish(self, **chosen: Any) -> Version:
        labels = LABELS if self.spec.task == "text-classification" else []
        return import_adapter(self.folder, self.spec, "theirs", self.settings, **{"labels": labels} | chosen)

    def refused(self, why: str, **chosen: Any) -> None:
        with pytest.raises(AdapterError, match=why) as caught:
            self.publish(**chosen)
        assert self.store.versions() == [] and caught.value.what and caught.value.next
        assert not list(self.store.root.glob(".staging-*"))


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("bert", "float32"), ("roberta", "bfloat16"), ("llama", "bfloat16"), ("gpt2", "float32"), ("t5", "float16")],
)
def test_an_adapter_made_by_peft_answers_as_peft_does(family: str, dtype: str, tmp_path: Path) -> None:
    bench, phases = Bench(family, tmp_path, dtype=getattr(torch, dtype)), list[str]()
    version = bench.publish(say=phases.append)
    assert phases == ["unpack", "base", "verify", "publish"]
    assert bench.store.get("theirs@1").manifest == version.manifest and bench.store.live(bench.spec.name) is None
    assert version.labels == (LABELS if bench.spec.task == "text-classification" else [])
    facts = version.manifest
    assert facts["fingerprint"]["change"] > 0 and facts["base"]["id"] == family and facts["base"]["identity"]
    assert facts["made_elsewhere"]["base"] == family and facts["made_elsewhere"]["file"] == "theirs"
    assert str(tmp_path) not in (version.path / "adapter_config.json").read_text() + json.dumps(facts)
    assert "made elsewhere" in (version.path / "README.md").read_text()
    model = ModelStore(tmp_path / "models", offline=True).resolve(bench.spec.model)
    answers_as_peft_does(Loaded(model, "none"), version, atol=1e-4)


def test_the_command_publishes_a_zip_that_is_not_made_live(tmp_path: Path, monkeypatch, capsys) -> None:
    base, home = tiny.make("bert", tmp_path / "bert"), tmp_path / "home"
    folder = made_elsewhere("bert", base, tmp_path / "theirs")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "theirs")
    monkeypatch.setenv("GRAFT_HOME", str(home))
    monkeypatch.setenv("GRAFT_QUANTIZE", "none")
    given = ["import", archive, "--plugin", "classification", "--name", "theirs", "--base", str(base)]
    assert main(given) == 2
    assert "a head of 3 labels. It does not name them. Name them all" in capsys.readouterr().err
    assert main([*given, "--refuse-in-one-line"]) == 2
    refused = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert refused["what"].endswith("a head of 3 labels.") and refused["why"] == "It does not name them."
    assert main([*given, "--labels", "late,great，odd"]) == 0
    assert capsys.readouterr().out.split() == ["unpack", "base", "verify", "publish", "theirs@1"]
    assert AdapterStore(home).live("classification") is None and folder.exists()
    assert main(["import", str(tmp_path / "gone"), *given[2:]]) == 2


def test_an_export_of_graft_brings_its_labels(bert: Trained, tmp_path: Path) -> None:
    archive = pack(bert.first, tmp_path / "first.zip")
    version = import_adapter(archive, bert.spec, "again", Settings(home=tmp_path / "home", quantize="none"))
    assert version.labels == bert.first.labels and version.ref == "again@1"
    values = bert.first.manifest["fingerprint"]["values"]
    assert version.manifest["fingerprint"]["values"] == pytest.approx(values, rel=1e-3)


def test_a_head_must_be_whole_and_its_labels_as_many_as_its_logits(tmp_path: Path) -> None:
    bench = Bench("bert", tmp_path)
    bench.refused("head of 3 labels.*names of 2", labels=["a", "b"])
    bench.refused("Two names are the same", labels=["a", "a", "b"])
    weights = bench.folder / WEIGHTS
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if not k.endswith("classifier.bias")}, weights)
    bench.refused("does not bring classifier.bias")
    save_file({k: v for k, v in tensors.items() if "classifier" not in k}, weights)
    bench.refused("holds no classifier's head")
    save_file(tensors, weights)
    (bench.folder / "config.json").write_text(json.dumps({"id2label": {"0": "x", "1": "y", "2": "z"}}))
    assert bench.publish(labels=[]).labels == ["x", "y", "z"]


def test_another_base_and_a_head_on_a_tab_that_writes_are_refused(tmp_path: Path) -> None:
    bench = Bench("llama", tmp_path)
    own, weights = bench.spec, bench.folder / WEIGHTS
    bench.spec = replace(own, model=str(tiny.make("gpt2", tmp_path / "gpt2")))
    bench.refused("which this base does not have")
    bench.spec = own
    save_file(load_file(weights) | {"base_model.model.score.weight": torch.zeros(2, 64)}, weights)
    bench.refused("this base has none")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"init_lora_weights": "pissa_niter_4"}, "began as pissa"),
        ({"use_magic": True}, "made with use_magic"),
        ({"bias": "all"}, "bias"),
        ({"r": 3}, "says another"),
        ({"modules_to_save": ["embed_tokens"]}, "no head that Graft knows"),
        ({"rank_pattern": {"^model.*q_proj$": 2}}, "only names of layers"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj", "down_proj"]}, "It lacks"),
        ({"lora_dropout": "much"}, "PEFT cannot load it"),
    ],
)
def test_a_configuration_that_cannot_be_served_is_refused(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    bench = Bench("llama", tmp_path)
    bench.configure(**config)
    bench.refused(why)


@pytest.mark.parametrize(
    ("fault", "why"),
    [("zeros", "It changes nothing"), ("nan", "not finite"), ("integers", "held as I64"), ("cut", "cut short")],
)
def test_weights_that_cannot_be_served_are_refused(fault: str, why: str, tmp_path: Path) -> None:
    bench = Bench("gpt2", tmp_path, use_dora=False)
    weights = bench.folder / WEIGHTS
    tensors = load_file(weights)
    odd = {"zeros": lambda t: torch.zeros_like(t), "nan": lambda t: t / 0, "integers": lambda t: t.long()}
    save_file({key: odd.get(fault, torch.clone)(value) for key, value in tensors.items()}, weights)
    if fault == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    bench.refused(why)


def test_a_pattern_of_layers_becomes_their_names_and_the_base_is_ours(tmp_path: Path) -> None:
    bench = Bench("llama", tmp_path, rank_pattern={}, alpha_pattern={}, target_modules=["q_proj"])
    theirs = {"base_model_name_or_path": "/home/me/llama", "revision": "abc", "megatron_core": "os"}
    bench.configure(target_modules=r".*\.q_proj", **theirs)
    version = bench.publish(prompt="Say: {text}")
    config = json.loads((version.path / "adapter_config.json").read_text())
    assert config["target_modules"] == [f"model.layers.{n}.self_attn.q_proj" for n in (0, 1)]
    assert (config["base_model_name_or_path"], config["revision"]) == ("llama", None) and "megatron_core" not in config
    assert version.manifest["made_elsewhere"]["base"] == "llama" and version.manifest["prompt"] == "Say: {text}"
    with pytest.raises(AdapterError, match=r"does not contain .text. once"):
        bench.publish(prompt="no place")
