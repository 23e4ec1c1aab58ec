"""A tab with its base in memory, without its page, on a home of its own; and random versions for it to answer with.

A version is PEFT's own LoRA on the base with random B matrices, published with the fingerprint that a load compares, as
the training worker publishes: versions answer differently, and nobody waits for training.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import peft
import torch

from bench.measure import Figures, link_models
from models import fingerprint
from models.chat_template import as_messages, encode
from models.loading import compute_dtype, linear_paths, load_model, resolve_quantization
from models.resolve import Model, ModelStore
from models.tokenizer import load_tokenizer
from serving.lm import LM
from serving.pool import Pool
from settings import Settings
from store.adapters import BASE, AdapterStore, Version
from tasks import TASKS, Columns, TabSpec, task_for

MINILM, SMOLLM = "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M-Instruct"
BASES = {"text-classification": MINILM, "causal-lm": SMOLLM}
LABELS = ["negative", "positive"]
BASE_LABELS = ["praise", "complaint"]
"""Labels for a base that has none of its own."""
SPREAD = 0.02
"""Standard deviation of the numbers in B: answers differ, and are still language."""
QUESTIONS = (
    "Write a long story about a lighthouse keeper and a storm.",
    "Explain in detail how a bicycle stays upright.",
    "Describe a walk through a forest in autumn, with many details.",
    "Tell me everything that you know about bread.",
    "Write a letter to a friend about moving to another city.",
    "Explain how rain is made, step by step.",
    "Describe the plan for a long holiday by train.",
    "Write an essay on why people like music.",
)
TOLERANCE = 1e-4
"""Difference of two probabilities that count as the same: a batch adds up in another order."""
BEGINNING = 16
"""Characters of two answers that are compared in bfloat16, where rounding soon takes each its own way."""
LEAST_SAME = 0.75
"""Share of answers that must be the same: batches add up in another order, and equally likely tokens may swap."""


@dataclass(frozen=True)
class BenchTab:
    """A tab named for its task, with this machine's bases and no versions yet."""

    settings: Settings
    spec: TabSpec

    @cached_property
    def adapters(self) -> AdapterStore:
        """Versions, of which none shipped with anything."""
        return AdapterStore(self.settings.home, self.settings.shipped)

    @cached_property
    def model(self) -> Model:
        """The base on the disk."""
        return self._models.resolve(self.spec.model)

    @cached_property
    def pool(self) -> Pool:
        """A pool with the base in memory."""
        pool = Pool(self.settings, self._models, self.adapters)
        pool.declare(self.spec.model)
        pool.check(self.spec, BASE)
        return pool

    @cached_property
    def tokenizer(self) -> Any:  # noqa: ANN401 - a tokenizer of transformers
        """The base's tokenizer."""
        return load_tokenizer(self.model)

    @property
    def labelled(self) -> bool:
        """True if answers are labels."""
        return TASKS[self.spec.task].answers == "label"

    @property
    def _models(self) -> ModelStore:
        return ModelStore(self.settings.home / "models", self.settings.offline)

    def ask(self, ref: str, text: str, tokens: int = 4) -> tuple[str, Any]:
        """Return the version that answered, and a text of at most `tokens`, or labels with probabilities."""
        with self.pool.open(self.spec, ref) as lm:
            version, pieces = lm.version, self._answer(lm, text, tokens)
            *_, answer = pieces
            return version, answer

    def waits(self, ref: str, text: str, tokens: int) -> list[float]:
        """Return the seconds until each piece of the answer, from the piece before; labels are one piece."""
        at = [time.perf_counter()]
        with self.pool.open(self.spec, ref) as lm:
            at += [time.perf_counter() for _ in self._answer(lm, text, tokens)]
        return [later - earlier for earlier, later in pairwise(at)]

    def _answer(self, lm: LM, text: str, tokens: int) -> Iterable[Any]:
        if self.labelled:
            return [lm.classify(text, BASE_LABELS if lm.version == BASE else None)]
        return lm.generate(text, max_new_tokens=tokens)

    def encode(self, text: str) -> list[int]:
        """Return the token ids that the base is given for a question."""
        if self.labelled:
            return list(self.tokenizer(text)["input_ids"])
        return list(encode(self.tokenizer, as_messages(text, self.spec.prompt), answer_next=True)[0])

    def speed(self, seconds: float, texts: Sequence[str]) -> Figures:
        """Compute tokens a second of written texts."""
        tokens = sum(len(self.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
        return {"tokens a second": tokens / seconds}


def open_tab(folder: Path, task: str, base: str = "", quantize: str = "none", name: str = "") -> BenchTab:
    """Make a home in `folder` and a tab of that task on `base`, an id or a folder, else the usual one of the task."""
    settings = Settings.from_env()
    home = folder / "home"
    link_models(home)
    labelled = TASKS[task].answers == "label"
    columns = Columns(text="text", target="label" if labelled else "answer")
    spec = TabSpec(name or ("classification" if labelled else "generation"), base or BASES[task], task, columns)
    return BenchTab(replace(settings, home=home, shipped=folder / "none", quantize=quantize, models={}), spec)


def publish(tab: BenchTab, names: Sequence[str], rank: int = 8, spread: float = SPREAD) -> list[Version]:
    """Publish the next version of each name, each from a seed of its own; `spread` is the standard deviation in B.

    In a thread that ends: one that has computed and stays makes others compute slower (`serving/compute_thread.py`).
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_publish, tab, names, rank, spread).result()


def _publish(tab: BenchTab, names: Sequence[str], rank: int, spread: float) -> list[Version]:
    model = tab.model
    task = task_for(tab.spec.task, model.config)
    quantize = resolve_quantization(tab.settings.quantize)
    head: dict[str, Any] = {"num_labels": len(LABELS)} if tab.labelled else {}
    base, _ = load_model(model, task.auto_class, quantize, **head)
    config = peft.LoraConfig(task_type=task.peft_type, r=rank, lora_alpha=2 * rank, target_modules=linear_paths(base))
    net = peft.get_peft_model(base, config).eval()
    id = Path(model.id).name if model.source == "folder" else model.id
    identity = {"id": id, "revision": model.revision, "source": model.source, "identity": model.identity}
    facts: dict[str, Any] = {"plugin": tab.spec.name, "task": task.name, "labels": LABELS if tab.labelled else []}
    facts |= {"prompt": tab.spec.prompt, "created": "2026-01-01T00:00:00Z"}
    facts |= {"base": {**identity, "shape_id": model.shape_id, "quantize": quantize}}
    versions = []
    for seed, name in enumerate(names):
        _randomize(net, seed, spread)
        proof = fingerprint.measure(net, tab.tokenizer, quantize, compute_dtype())
        with tab.adapters.staging() as staging:
            net.save_pretrained(staging, selected_adapters=["default"], save_embedding_layers=False)
            versions.append(tab.adapters.publish(staging, name, {**facts, "fingerprint": proof}))
    return versions


@torch.no_grad()
def _randomize(net: torch.nn.Module, seed: int, spread: float) -> None:
    """Draw new A and B matrices, and a new head where there is one."""
    # On the CPU, so that a seed is the same version on every device.
    dice = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        if parameter.requires_grad and parameter.dim() > 1:
            width = parameter.shape[1] ** -0.5 if "lora_B" not in name else spread
            parameter.copy_(torch.randn(parameter.shape, generator=dice) * width)


def republish(store: AdapterStore, source: Version, name: str) -> Version:
    """Publish the next version of `name` with the files of `source`: the same disk blocks, another manifest."""
    facts = {key: value for key, value in source.manifest.items() if key not in ("format", "name", "number", "files")}
    with store.staging() as staging:
        for file in source.manifest["files"]:
            (staging / file).hardlink_to(source.path / file)
        return store.publish(staging, name, facts)


def same_answer(answer: Any, other: Any) -> bool:  # noqa: ANN401 - a text, or labels with probabilities
    """Tell whether two texts are equal, or two mappings have the same labels with the same probabilities."""
    if not isinstance(other, Mapping):
        return bool(answer == other)
    return set(answer) == set(other) and all(abs(answer[label] - other[label]) <= TOLERANCE for label in other)


def check_texts(name: str, ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Count how many answers of both sides are the same; raises `RuntimeError` where too few are."""
    length = None if Settings.from_env().precision == "auto" else BEGINNING
    same = sum(one.strip()[:length] == other.strip()[:length] for one, other in zip(ours, theirs, strict=True))
    if same < LEAST_SAME * len(ours):
        raise RuntimeError(f"{name}: only {same} of {len(ours)} answers are the same:\n{ours}\n{theirs}")
    return f"{same} of {len(ours)}"
