"""training/publish/import_peft.py: adapters that PEFT alone made, taken in and served as PEFT answers with them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from errors import AdapterError, GraftError
from models.resolve import ModelStore
from serving.loaded import Loaded
from settings import Settings
from store.adapters import WEIGHTS, AdapterStore, Version
from store.archive import pack
from tasks import TabSpec
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.training_helpers import spec_of
from tests.training.test_families import answers_as_peft_does
from training.__main__ import main
from training.publish.import_peft import plain_config, take_in

LABELS = ["late", "great", "odd"]
MADE = {
    "bert": {"target_modules": ["query", "value"], "use_rslora": True},
    "roberta": {"target_modules": ["query", "value"]},
    "llama": {"target_modules": ["q_proj", "v_proj", "down_proj"], "rank_pattern": {"layers.0.self_attn.q_proj": 2},
              "alpha_pattern": {"down_proj": 3}},
    "gpt2": {"target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True},
    "t5": {"target_modules": ["q", "v"], "init": "fp16"},
}  # fmt: skip
NET = {"bert": ("SequenceClassification", "SEQ_CLS"), "roberta": ("SequenceClassification", "SEQ_CLS"),
       "t5": ("Seq2SeqLM", "SEQ_2_SEQ_LM")}  # fmt: skip


def made_elsewhere(family: str, base: Path, folder: Path, dtype: torch.dtype = torch.float32, **chosen: Any) -> Path:
    """A folder as PEFT writes it, with matrices that change answers."""
    kind, task = NET.get(family, ("CausalLM", "CAUSAL_LM"))
    options = {"num_labels": len(LABELS)} if task == "SEQ_CLS" else {}
    torch.manual_seed(3)
    net = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(base, **options)
    settings = {"r": 4, "lora_alpha": 8, "task_type": task} | {k: v for k, v in MADE[family].items() if k != "init"}
    trained = get_peft_model(net, LoraConfig(**settings | chosen))
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    trained.save_pretrained(folder)
    tensors = load_file(folder / WEIGHTS)
    save_file({key: value.to(dtype) for key, value in tensors.items()}, folder / WEIGHTS)
    return folder


def changed(folder: Path, **config: Any) -> Path:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


class Bench:
    """A base of one family, an adapter made for it elsewhere, and a home."""

    def __init__(self, family: str, tmp: Path, **chosen: Any) -> None:
        self.spec: TabSpec = spec_of(family, tiny.make(family, tmp / family))
        self.settings = Settings(home=tmp / "home", shipped=tmp / "none", quantize="none")
        self.folder = made_elsewhere(family, tmp / family, tmp / "theirs", **chosen)
        self.store = AdapterStore(self.settings.home)

    def take_in(self, **chosen: Any) -> Version:
        labels = LABELS if self.spec.task == "text-classification" else []
        return take_in(self.folder, self.spec, "theirs", self.settings, **{"labels": labels} | chosen)

    def refused(self, why: str, **chosen: Any) -> GraftError:
        with pytest.raises(AdapterError, match=why) as caught:
            self.take_in(**chosen)
        assert self.store.versions() == [] and caught.value.what and caught.value.next
        assert not list(self.store.root.glob(".staging-*"))
        return caught.value


@pytest.fixture
def bert_bench(tmp_path: Path) -> Bench:
    return Bench("bert", tmp_path)


@pytest.mark.parametrize(
    ("family", "dtype"),
    [("bert", "float32"), ("roberta", "bfloat16"), ("llama", "bfloat16"), ("gpt2", "float32"), ("t5", "float16")],
)
def test_an_adapter_made_by_peft_answers_as_peft_does(family: str, dtype: str, tmp_path: Path, capsys) -> None:
    bench = Bench(family, tmp_path, dtype=getattr(torch, dtype))
    version = bench.take_in()
    assert capsys.readouterr().out.split() == ["unpack", "base", "verify", "publish"]
    assert bench.store.get("theirs@1").manifest == version.manifest and bench.store.live(bench.spec.name) is None
    assert version.labels == (LABELS if bench.spec.task == "text-classification" else [])
    facts = version.manifest
    assert facts["fingerprint"]["change"] > 0 and facts["base"]["id"] == family and facts["base"]["identity"]
    assert facts["made_elsewhere"]["base"] == family and facts["made_elsewhere"]["file"] == "theirs"
    assert str(tmp_path) not in (version.path / "adapter_config.json").read_text() + json.dumps(facts)
    assert "made elsewhere" in (version.path / "README.md").read_text()
    model = ModelStore(tmp_path / "models", offline=True).resolve(bench.spec.model)
    answers_as_peft_does(Loaded(model, "none"), version, atol=1e-4)


def test_a_zip_is_taken_in_by_the_command_and_not_made_live(tmp_path: Path, monkeypatch, capsys) -> None:
    base, home = tiny.make("bert", tmp_path / "bert"), tmp_path / "home"
    folder = made_elsewhere("bert", base, tmp_path / "theirs")
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "theirs")
    monkeypatch.setenv("GRAFT_HOME", str(home))
    monkeypatch.setenv("GRAFT_QUANTIZE", "none")
    given = [archive, "--plugin", "classification", "--name", "theirs", "--base", str(base)]
    assert main(["import", *given]) == 2
    assert "a head of 3 labels. It does not name them. Name them all" in capsys.readouterr().err
    assert main(["import", *given, "--labels", "late,great，odd"]) == 0
    assert capsys.readouterr().out.split()[-1] == "theirs@1"
    assert AdapterStore(home).live("classification") is None and folder.exists()
    assert main(["import", str(tmp_path / "gone"), *given[1:]]) == 2


def test_what_graft_exported_brings_its_labels(bert: Trained, tmp_path: Path) -> None:
    archive = pack(bert.first, tmp_path / "first.zip")
    version = take_in(archive, bert.spec, "again", Settings(home=tmp_path / "home", quantize="none"))
    assert version.labels == bert.first.labels and version.ref == "again@1"
    told, found = bert.first.manifest["fingerprint"], version.manifest["fingerprint"]
    assert found["values"] == pytest.approx(told["values"], rel=1e-3)


def test_labels_are_as_many_as_the_head_has(bert_bench: Bench) -> None:
    bert_bench.refused("head of 3 labels.*names of 2", labels=["a", "b"])
    bert_bench.refused("Two names are the same", labels=["a", "a", "b"])
    (bert_bench.folder / "config.json").write_text(json.dumps({"id2label": {"0": "x", "1": "y", "2": "z"}}))
    assert bert_bench.take_in(labels=[]).labels == ["x", "y", "z"]


def test_another_base_is_refused_with_the_layer(tmp_path: Path) -> None:
    bench = Bench("llama", tmp_path)
    bench.spec = replace(bench.spec, model=str(tiny.make("gpt2", tmp_path / "gpt2")))
    bench.refused("which this base does not have")


def test_a_head_must_be_whole_and_fit(bert_bench: Bench, tmp_path: Path) -> None:
    weights = bert_bench.folder / WEIGHTS
    tensors = load_file(weights)
    save_file({k: v for k, v in tensors.items() if not k.endswith("classifier.bias")}, weights)
    bert_bench.refused("does not bring classifier.bias")
    save_file({k: v for k, v in tensors.items() if "classifier" not in k}, weights)
    bert_bench.refused("holds no classifier's head")


def test_a_classifier_is_refused_by_a_tab_that_writes(bert_bench: Bench, tmp_path: Path) -> None:
    bench = Bench("llama", tmp_path / "other")
    tensors = load_file(bench.folder / WEIGHTS)
    save_file(tensors | {"base_model.model.score.weight": torch.zeros(2, 64)}, bench.folder / WEIGHTS)
    bench.refused("this base has none")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"peft_type": "IA3"}, "peft_type"), ({"init_lora_weights": "pissa_niter_4"}, "began as pissa"),
        ({"use_magic": True}, "made with use_magic"), ({"bias": "all"}, "bias"),
        ({"r": 3}, "says another"), ({"modules_to_save": ["embed_tokens"]}, "no head that Graft knows"),
        ({"rank_pattern": {"^model.*q_proj$": 2}}, "only names of layers"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj", "down_proj"]}, "It lacks"),
        ({"lora_dropout": "much"}, "PEFT cannot load it"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_refused(config: dict[str, Any], why: str, tmp_path: Path) -> None:
    bench = Bench("llama", tmp_path)
    changed(bench.folder, **config)
    bench.refused(why)


@pytest.mark.parametrize(
    ("fault", "why"),
    [("zeros", "It changes nothing"), ("nan", "not finite"), ("integers", "held as I64"), ("cut", "cut short")],
)
def test_weights_that_are_none_are_refused(fault: str, why: str, tmp_path: Path) -> None:
    bench = Bench("gpt2", tmp_path, use_dora=False)
    weights = bench.folder / WEIGHTS
    tensors = load_file(weights)
    odd = {"zeros": lambda t: torch.zeros_like(t), "nan": lambda t: t / 0, "integers": lambda t: t.long()}
    save_file({key: odd.get(fault, torch.clone)(value) for key, value in tensors.items()}, weights)
    if fault == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    bench.refused(why)


def test_a_pattern_of_layers_becomes_their_names_and_nothing_else_is_kept(tmp_path: Path) -> None:
    bench = Bench("llama", tmp_path, rank_pattern={}, alpha_pattern={}, target_modules=["q_proj"])
    changed(bench.folder, target_modules=r".*\.q_proj", megatron_core="os", base_model_name_or_path="/home/me/llama")
    version = bench.take_in(prompt="Say: {text}")
    config = json.loads((version.path / "adapter_config.json").read_text())
    assert config["target_modules"] == [f"model.layers.{n}.self_attn.q_proj" for n in (0, 1)]
    assert "megatron_core" not in config and config["base_model_name_or_path"] == "llama"
    assert version.manifest["made_elsewhere"]["base"] == "llama" and version.manifest["prompt"] == "Say: {text}"
    with pytest.raises(AdapterError, match=r"does not contain .text. once"):
        bench.take_in(prompt="no place")


def test_the_plain_configuration_is_bound_to_the_base() -> None:
    found = plain_config({"r": 2, "target_modules": ["q"], "revision": "abc"}, [], "org/base", "SEQ_CLS", "theirs")
    assert found["base_model_name_or_path"] == "org/base" and found["revision"] is None
    assert found["peft_type"] == "LORA" and found["init_lora_weights"] is True and found["inference_mode"] is True
