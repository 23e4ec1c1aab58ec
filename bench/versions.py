"""Versions that answer differently, without training: PEFT's own LoRA on the base, its B matrices random.

Published through the store, with the fingerprint that a load compares, as the worker publishes what it has trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import peft
import torch

from models import fingerprint
from models.loading import compute_dtype, linear_paths, load_model, resolve_quantization
from models.resolve import Model, ModelStore
from models.tokenizer import load_tokenizer
from serving.pool import Pool
from settings import Settings
from store.adapters import AdapterStore, Version
from tasks import TASKS, Columns, TabSpec, task_for

MINILM, SMOLLM = "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M-Instruct"
LABELS = ["negative", "positive"]
SPREAD = 0.02
"""Standard deviation of the numbers in B: answers differ, and are still language."""


@dataclass(frozen=True)
class Site:
    """A home of the benchmark's own, with the bases that this machine has, and one tab."""

    settings: Settings
    spec: TabSpec

    @property
    def models(self) -> ModelStore:
        """The bases."""
        return ModelStore(self.settings.home / "models", self.settings.offline)

    @property
    def adapters(self) -> AdapterStore:
        """The versions, of which none shipped with anything."""
        return AdapterStore(self.settings.home, self.settings.shipped)

    @property
    def model(self) -> Model:
        """The tab's base."""
        return self.models.resolve(self.spec.model)

    def pool(self) -> Pool:
        """A pool that has its base in memory."""
        pool = Pool(self.settings, self.models, self.adapters)
        pool.declare(self.spec.model)
        pool.check(self.spec, "base")
        return pool


def make_site(folder: Path, base: str, task: str, quantize: str = "none", name: str = "") -> Site:
    """A home in `folder` and a tab of that task on `base`, an id or a folder; `name` where it is not the usual one."""
    found = Settings.from_env()
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "models").exists():
        (home / "models").symlink_to(found.home.absolute() / "models")
    settings = replace(found, home=home, shipped=folder / "none", quantize=quantize, models={})
    labelled = TASKS[task].answers == "label"
    columns = Columns(text="text", target="label" if labelled else "answer")
    return Site(settings, TabSpec(name or ("classification" if labelled else "generation"), base, task, columns))


def publish(site: Site, names: Sequence[str], rank: int = 8, spread: float = SPREAD) -> list[Version]:
    """The next version of each name, each from a seed of its own; `spread` is the standard deviation in B.

    In a thread that ends: one that has computed and stays makes what others compute slower (`compute_thread.py`).
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_publish, site, names, rank, spread).result()


def _publish(site: Site, names: Sequence[str], rank: int, spread: float) -> list[Version]:
    model = site.model
    task = task_for(site.spec.task, model.config)
    quantize = resolve_quantization(site.settings.quantize)
    labels: dict[str, Any] = {"num_labels": len(LABELS)} if task.answers == "label" else {}
    base, _ = load_model(model, task.auto_class, quantize, **labels)
    config = peft.LoraConfig(task_type=task.peft_type, r=rank, lora_alpha=2 * rank, target_modules=linear_paths(base))
    net, tokenizer = peft.get_peft_model(base, config), load_tokenizer(model)
    net.eval()
    facts = {
        "plugin": site.spec.name, "task": task.name, "labels": LABELS if labels else [], "prompt": site.spec.prompt,
        "base": {"id": Path(model.id).name if model.source == "folder" else model.id, "revision": model.revision,
                 "source": model.source, "identity": model.identity, "shape_id": model.shape_id, "quantize": quantize},
        "created": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    found = []
    for seed, name in enumerate(names):
        _randomize(net, seed, spread)
        told = fingerprint.of_trained(net, tokenizer, quantize, compute_dtype())
        with site.adapters.staging() as staging:
            net.save_pretrained(staging, selected_adapters=["default"], save_embedding_layers=False)
            found.append(site.adapters.publish(staging, name, {**facts, "fingerprint": told}))
    return found


def republish(site: Site, source: Version, name: str) -> Version:
    """The next version of `name`, with the files of `source`: the same disk blocks, another manifest."""
    facts = {key: value for key, value in source.manifest.items() if key not in ("format", "name", "number", "files")}
    with site.adapters.staging() as staging:
        for file in source.manifest["files"]:
            (staging / file).hardlink_to(source.path / file)
        return site.adapters.publish(staging, name, facts)


@torch.no_grad()
def _randomize(net: Any, seed: int, spread: float) -> None:  # noqa: ANN401 - a PeftModel
    """New A and B matrices, and a new head where there is one."""
    # Drawn on the CPU, so that a seed is the same version on every device.
    dice = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and parameter.dim() > 1:
            width = parameter.shape[1] ** -0.5 if "lora_B" not in name else spread
            parameter.copy_(torch.randn(parameter.shape, generator=dice) * width)
