"""training/publish/model_card.py and lineage.py: README.md and manifest of a version, for people, the Hub and PEFT."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from store import files
from store.adapters import WEIGHTS, AdapterStore, Version
from store.files import sha256
from tests.conftest import Trained
from tests.helpers.exact import ON_GPU
from tests.helpers.training_helpers import train
from training.publish import lineage

pytestmark = pytest.mark.slow


def text_of(version: Version) -> str:
    return (version.path / "README.md").read_text(encoding="utf-8")


def test_the_hub_reads_the_measured_metrics(trained: Trained) -> None:
    version = trained.first
    data = ModelCard.load(version.path / "README.md").data
    assert (data.base_model, data.library_name, data.model_name) == (Path(trained.spec.model).name, "peft", "first")
    assert data.pipeline_tag == ("text-classification" if version.labels else "text-generation")
    assert data.license is None, "the publisher's to choose"
    found = {result.metric_name: result.metric_value for result in data.eval_results}
    assert sorted(found.values()) == sorted(round(value, 4) for value in version.card["new"].values())
    assert {result.task_type for result in data.eval_results} == {data.pipeline_tag}
    front = yaml.safe_load(text_of(version).split("---\n")[1])
    assert set(front["model-index"][0]["results"][0]) == {"task", "dataset", "metrics"}


def test_the_model_card_says_what_was_measured_and_what_not(bert: Trained, llama: Trained, tmp_path: Path) -> None:
    text, card = text_of(bert.first), bert.first.card
    low, high = card["certainty"]["intervals"]["accuracy"]["new"]
    assert f"{card['new']['accuracy']:.3f} ({low:.3f} to {high:.3f})" in text
    assert "`0`, `1`" in text and "Bias and safety: not measured." in text
    assert "A version that answered before: not measured." in text and "may be chance" in text
    assert "    Sum up: {text}" in text_of(llama.first) and "ROUGE-L is of the first answers" in text_of(llama.first)
    AdapterStore(tmp_path).promote("classification", train(bert.spec, tmp_path, "before").ref)
    text = text_of(train(bert.spec, tmp_path, "after"))
    assert "| | base | before (before@1) | this version | difference |\n|---|---|---|---|---|" in text
    assert "A version that answered before" not in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.count("|") for line in rows} == {6} and len(rows) == 4


RUN = """
print(type(model).__name__, sum(p.numel() for n, p in model.named_parameters() if "lora_B" in n and p.abs().max() > 0))
"""


def test_the_code_of_a_model_card_loads_it_with_peft_alone(trained: Trained, tmp_path: Path) -> None:
    """Names in it are relative: the base by its folder's name, and the version as the working directory."""
    shutil.copytree(trained.first.path, tmp_path / "version")
    shutil.copytree(trained.spec.model, tmp_path / "version" / Path(trained.spec.model).name)
    (code,) = re.findall(r"^```python\n(.*?)^```$", text_of(trained.first), re.MULTILINE | re.DOTALL)
    command = [sys.executable, "-c", code + RUN]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    child = subprocess.run(command, cwd=tmp_path / "version", capture_output=True, text=True, env=env)
    assert child.returncode == 0, child.stderr
    tensors = load_file(trained.first.path / WEIGHTS)
    learned = sum(tensor.numel() for key, tensor in tensors.items() if "lora_B" in key and tensor.abs().max() > 0)
    kind = "PeftModelForSequenceClassification" if trained.first.labels else "PeftModelForCausalLM"
    assert child.stdout.split() == [kind, str(learned)]


def test_the_manifest_records_rows_libraries_and_machine(bert: Trained) -> None:
    facts = bert.first.manifest
    data = facts["data"]
    assert data["sha256"] == sha256(bert.home / "first.csv") and data["file"] == "first.csv"
    assert data["trained"] + data["held_out"] == data["usable"] == data["rows"] == 24
    assert sum(data["held_out_labels"].values()) == data["held_out"] == bert.first.card["held_out"]
    assert set(facts["libraries"]) == {"graft", "python", *lineage.LIBRARIES}
    least = 2**20 if ON_GPU else 100 * 2**20  # of a GPU the base alone, without the process and its libraries
    assert facts["measured"]["peak_memory"] > least and facts["measured"]["steps"] == 2
    machine = facts["machine"]
    assert machine["cores"] == os.cpu_count() and machine["memory_bytes"] > 2**30 and machine["cpu"]


def test_r33_nothing_of_a_version_names_this_machines_folders(bert: Trained) -> None:
    for path in bert.first.path.iterdir():
        if path.name != WEIGHTS:
            assert str(bert.home) not in path.read_text(encoding="utf-8"), path.name
    assert files.read_json(bert.first.path / "adapter_config.json")["base_model_name_or_path"] == "bert"
