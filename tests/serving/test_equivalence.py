"""mixed_batch.py, slots.py: rows of many versions in one pass, each equal to PEFT on its folder alone.

For each family, versions of every kind that people have, made by PEFT itself with random matrices, share one pass with
rows of the bare base: once with rows of several tokens and once with rows of one, which go another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from models.chat_template import TokenizedText
from models.loading import linear_paths, load_model
from serving.base.base_model import adapter_of
from serving.base.mixed_batch import MixedBatch
from serving.base.slots import Slot
from serving.classifier import _Question
from serving.loaded import Loaded
from store.adapters import AdapterStore, Version
from tasks import task_for
from tests.helpers import tiny
from tests.helpers.answers import load
from tests.helpers.evaluations import LABELS, made_elsewhere, peft_net
from tests.helpers.exact import ATOL, INT8_ATOL
from tests.helpers.training_helpers import spec_of
from tests.helpers.versions import calm

pytestmark = pytest.mark.slow

Batch = dict[str, torch.Tensor]
TEXTS = ["where is my parcel", "the app crashes on start", "thank you, well done", "hello"]
PLAIN = {"use_dora": False, "use_rslora": False, "rank_pattern": {}, "alpha_pattern": {}}
VARIANTS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "lora": lambda paths: {"target_modules": paths, "r": 8, "lora_alpha": 16},
    "rank-3": lambda paths: {"target_modules": paths, "r": 3, "lora_alpha": 5},
    "rslora": lambda paths: {"target_modules": paths, "r": 6, "use_rslora": True},
    "patterns": lambda paths: {
        "target_modules": paths,
        "rank_pattern": {paths[0]: 2, paths[-1].rsplit(".", 1)[-1]: 7},
        "alpha_pattern": {paths[1]: 3},
    },
    "some-layers": lambda paths: {"target_modules": paths[1::3], "r": 5},
    "dora": lambda paths: {
        "target_modules": paths[::2],
        "use_dora": True,
        "use_rslora": True,
        "rank_pattern": {paths[0]: 9},
        "alpha_pattern": {paths[2]: 20},
    },
    "bfloat16": lambda paths: {"target_modules": paths, "r": 2},
    "float16": lambda paths: {"target_modules": paths, "r": 2},
}
CASES = [(family, "none") for family in tiny.FAMILIES]
CASES += [(family, held) for family in ("bert", "llama") for held in ("4bit", "8bit")]


class Base:
    """A tiny base with a version of each variant."""

    def __init__(self, family: str, held: str, home: Path) -> None:
        self.family, self.folder = family, calm(tiny.make(family, home / family))
        quantize, precision = ("none", held) if held == "bfloat16" else (held, "auto")
        self.loaded: Loaded = load(self.folder, quantize, precision)
        self.resident, self.labels = self.loaded.base, LABELS if family in tiny.ENCODERS else []
        self.store = AdapterStore(home)
        self.versions = [self.publish(name) for name in VARIANTS]

    def publish(self, name: str) -> Version:
        spec, model = spec_of(self.family, self.folder), self.resident.model
        task = task_for(spec.task, model.config)
        options = PLAIN | VARIANTS[name](linear_paths(load_model(model, task.auto_class)[0]))
        with self.store.staging() as staging:
            made_elsewhere(self.family, self.folder, staging, getattr(torch, name, torch.float32), **options)
            base = {"id": model.id, "identity": model.identity, "shape_id": model.shape_id}
            facts = {"plugin": spec.name, "task": task.name, "labels": self.labels, "base": base}
            return self.store.publish(staging, name, facts)

    def batch(self, tokens: int, rows: int) -> Batch:
        """Make different rows of as many tokens; for an encoder-decoder both sides have them."""
        torch.manual_seed(9)
        ids = torch.randint(7, 400, (rows, tokens)).to(self.resident.device)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return {**batch, "decoder_input_ids": ids.flip(0)} if self.resident.config.is_encoder_decoder else batch

    @torch.inference_mode()
    def logits(self, batch: Batch, rows: list[Slot | None]) -> torch.Tensor:
        """Answer each row with its slot, in one pass."""
        if self.labels:
            texts = [TokenizedText({"input_ids": ids}, len(ids)) for ids in batch["input_ids"].tolist()]
            questions = [_Question(text, slot) for text, slot in zip(texts, rows, strict=True)]
            return torch.stack(self.loaded.classifier._logit_pass(questions)).to(self.resident.device)
        with self.resident.using(adapter_of(rows)):
            return self.resident.net(**batch).logits.float()

    def mixed_passes(self) -> Iterator[tuple[Batch, torch.Tensor, list[Slot | None]]]:
        """Yield batches with rows of one token and of twelve, our logits, and the slots of the rows.

        Each version has two rows that are not neighbours; two are of the bare base, which has no labels.
        """
        with ExitStack() as pinned:
            rows = [pinned.enter_context(self.resident.slots.pin(version)) for version in self.versions] * 2
            rows = rows if self.labels else [None, *rows, None]
            for tokens in (1, 12):
                batch = self.batch(tokens, len(rows))
                yield batch, self.logits(batch, rows), rows


@pytest.fixture(scope="module")
def variants(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Base]:
    return cache(lambda family, held: Base(family, held, tmp_path_factory.mktemp(family)))


def rows_with(version: Version, rows: list[Slot | None]) -> list[int]:
    return [i for i, row in enumerate(rows) if row and row.version.ref == version.ref]


@pytest.mark.parametrize(("family", "held"), CASES, ids=[f"{f}-{q}" for f, q in CASES])
def test_rows_of_all_kinds_of_versions_answer_as_peft_does_with_each(
    family: str, held: str, variants: Callable[[str, str], Base]
) -> None:
    base = variants(family, held)
    assert base.resident.mixes
    # LLM.int8 rounds the rows of a pass by what they share, so those are compared more loosely.
    atol = max(5e-2, INT8_ATOL) if held == "8bit" else 1e-4
    for batch, found, rows in base.mixed_passes():
        for version in base.versions:
            mine = rows_with(version, rows)
            with torch.inference_mode():  # all rows, because quantized kernels round by the shape of a pass
                theirs = peft_net(base.loaded, version)(**batch).logits[mine]
            assert torch.allclose(found[mine], theirs, atol=atol), (
                f"{version.ref}, {batch['input_ids'].shape}: {(found[mine] - theirs).abs().max()}"
            )
        if not base.labels:
            bare = base.logits({key: value[[0, -1]] for key, value in batch.items()}, [None, None])
            assert torch.allclose(found[[0, -1]], bare, atol=atol)
            assert (found[1:-1] - base.logits(batch, [None] * len(rows))[1:-1]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_version_changes_in_bfloat16_what_it_changes_in_peft(
    family: str, variants: Callable[[str, str], Base]
) -> None:
    """Rounded at every layer, so beside the change itself: 0.002 to 0.09 of it were seen."""
    base = variants(family, "bfloat16")
    assert base.resident.net.dtype == torch.bfloat16
    for batch, found, rows in base.mixed_passes():
        for version in base.versions:
            mine, net = rows_with(version, rows), peft_net(base.loaded, version)
            with torch.inference_mode():
                theirs = net(**batch).logits[mine].float()
                with net.disable_adapter():
                    bare = net(**batch).logits[mine].float()
            assert (found[mine] - theirs).norm() < 0.2 * (theirs - bare).norm(), f"{version.ref}"


@pytest.mark.parametrize("family", tiny.ENCODERS)
def test_callers_of_different_versions_share_one_pass(family: str, variants: Callable[[str, str], Base]) -> None:
    base = variants(family, "none")
    classifier = base.loaded.classifier
    with ExitStack() as pinned:
        slots = [pinned.enter_context(base.resident.slots.pin(version)) for version in base.versions]
        asked = [(text, slot) for slot in slots for text in TEXTS]
        alone = [classifier.classify(text, slot) for text, slot in asked]
        passes: list[int] = []
        hook = base.resident.body.register_forward_hook(lambda *_: passes.append(1))
        questions = [(_Question(classifier._tokenize(text), slot), 0) for text, slot in asked]
        logits = classifier._logits.map(None, questions)
        hook.remove()
    assert len(passes) == 1
    for one, together in zip(alone, logits, strict=True):
        assert list(one.values()) == pytest.approx(together.softmax(-1).tolist(), abs=ATOL)


def test_a_base_whose_rows_share_a_layer_answers_one_version_a_pass(tmp_path: Path) -> None:
    """DeBERTa transforms relative positions, which all rows share, by the layers of its queries and keys."""
    folder = tiny.make("bert", tmp_path / "deberta")
    config = transformers.DebertaV2Config(
        **tiny.SMALL, vocab_size=600, relative_attention=True, pos_att_type=["p2c", "c2p"]
    )
    transformers.DebertaV2Model(config).save_pretrained(folder)
    assert not load(folder).base.mixes


def test_matrices_are_gathered_once_for_a_composition(variants: Callable[[str, str], Base]) -> None:
    base = variants("llama", "none")
    with ExitStack() as pinned:
        slots = [pinned.enter_context(base.resident.slots.pin(version)) for version in base.versions[:3]]
        adapter = adapter_of([*slots, None])
        assert isinstance(adapter, MixedBatch)
        assert adapter_of([slots[0], slots[0]]) is slots[0] and adapter_of([None, None]) is None
        batch, made = base.batch(1, 4), []
        stack = adapter._stack
        adapter._stack = lambda *args: (made.append(args[0]), stack(*args))[1]  # type: ignore[method-assign]
        with torch.inference_mode(), base.resident.using(adapter):
            for _ in range(3):
                base.resident.net(**batch)
    assert len(made) == len(set(made)) == len(base.resident.layers)
    ranks = {each.a.shape[2] for each in adapter._stacks.values() if each}
    assert ranks == {8}, "8 beside 3 and 6, padded to one power of two"
