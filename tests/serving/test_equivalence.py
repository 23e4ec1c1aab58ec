"""mixed_batch.py, slots.py: rows of many versions in one pass, each equal to PEFT on its folder alone.

For each family, versions of every kind that people have, made by PEFT itself with random matrices, share one pass with
a row of the bare base: once with rows of several tokens and once with rows of one, which go another way.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from models.loading import compute_dtype, linear_paths, load_model
from models.resolve import ModelStore
from serving.base.base_model import adapter_of
from serving.base.mixed_batch import MixedBatch
from serving.base.slots import Slot, segments
from serving.classifier import _Question
from serving.loaded import Loaded
from store.adapters import WEIGHTS, AdapterStore, Version
from tasks import TASKS, task_for
from tests.helpers import tiny
from tests.helpers.exact import ATOL, INT8_ATOL
from tests.helpers.training_helpers import spec_of
from tests.helpers.versions import calm

TEXTS = ["where is my parcel", "the app crashes on start", "thank you, well done", "hello"]
LABELS = ["no", "yes", "perhaps"]
VARIANTS: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "lora": lambda paths: {"target_modules": paths, "r": 8, "lora_alpha": 16},
    "rank-3": lambda paths: {"target_modules": paths, "r": 3, "lora_alpha": 5},
    "rslora": lambda paths: {"target_modules": paths, "r": 6, "use_rslora": True},
    "patterns": lambda paths: {
        "target_modules": paths,
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {paths[0]: 2, paths[-1].rsplit(".", 1)[-1]: 7},
        "alpha_pattern": {paths[1]: 3},
    },
    "some-layers": lambda paths: {"target_modules": paths[1::3], "r": 5},
    "dora": lambda paths: {
        "target_modules": paths[::2],
        "r": 4,
        "use_dora": True,
        "use_rslora": True,
        "rank_pattern": {paths[0]: 9},
        "alpha_pattern": {paths[2]: 20},
    },
    "bfloat16": lambda paths: {"target_modules": paths, "r": 2},
    "float16": lambda paths: {"target_modules": paths, "r": 2},
}
QUANTIZED = [("bert", "4bit"), ("bert", "8bit"), ("llama", "4bit"), ("llama", "8bit")]
CASES = [(family, "none") for family in tiny.FAMILIES] + QUANTIZED


class Base:
    """A tiny base with a version of each variant, and what PEFT answers with them."""

    def __init__(self, family: str, held: str, home: Path) -> None:
        self.family, self.home = family, home
        self.quantize, self.precision = ("none", held) if held == "bfloat16" else (held, "auto")
        self.spec = spec_of(family, calm(tiny.make(family, home / family)))
        self.model = ModelStore(home / "models", offline=True).resolve(self.spec.model)
        self.task = task_for(self.spec.task, self.model.config)
        self.labels = LABELS if self.task.head else []
        self.versions = [self.publish(name, options) for name, options in VARIANTS.items()]
        self.loaded = Loaded(self.model, self.quantize, self.precision)

    def net(self, quantize: str) -> Any:
        options = {"num_labels": len(self.labels)} if self.labels else {}
        return load_model(self.model, self.task.auto_class, quantize, compute_dtype(self.precision), **options)[0]

    def publish(self, name: str, options: Callable[[list[str]], dict[str, Any]]) -> Version:
        net = self.net("none")
        heads = [head for head in self.task.head if head in dict(net.named_children())]
        paths = [path for path in linear_paths(net) if path.split(".")[0] not in heads]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PEFT has words about rsLoRA beside patterns
            config = LoraConfig(
                task_type=self.task.peft_type,
                modules_to_save=heads or None,
                fan_in_fan_out=self.family == "gpt2",
                **options(paths),
            )
            made = get_peft_model(net, config)
        torch.manual_seed(len(name))
        for key, weight in made.named_parameters():
            with torch.no_grad():
                if "magnitude" in key:
                    weight.mul_(1 + 0.2 * torch.randn_like(weight))
                elif ".lora_" in key or "modules_to_save" in key:
                    weight.copy_(0.1 * torch.randn_like(weight))
        store = AdapterStore(self.home)
        with store.staging() as staging:
            made.peft_config["default"].inference_mode = True
            made.save_pretrained(staging, save_embedding_layers=False)
            if dtype := getattr(torch, name, None):
                held = load_file(staging / WEIGHTS)
                save_file({key: value.to(dtype) for key, value in held.items()}, staging / WEIGHTS)
            model = {"id": self.model.id, "identity": self.model.identity, "shape_id": self.model.shape_id}
            facts = {"plugin": self.spec.name, "task": self.task.name, "labels": self.labels, "base": model}
            return store.publish(staging, name, facts)

    def peft(self, version: Version) -> Any:
        return PeftModel.from_pretrained(self.net(self.quantize), version.path).eval()


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Base]:
    made: dict[tuple[str, str], Base] = {}

    def base(family: str, quantize: str) -> Base:
        if (family, quantize) not in made:
            made[family, quantize] = Base(family, quantize, tmp_path_factory.mktemp(family))
        return made[family, quantize]

    return base


def batch_of(base: Base, tokens: int, rows: int) -> dict[str, torch.Tensor]:
    """So many different rows of so many tokens; for an encoder-decoder both sides have them."""
    torch.manual_seed(9)
    ids = torch.randint(7, 400, (rows, tokens)).to(base.loaded.base.device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {**batch, "decoder_input_ids": ids.flip(0)} if base.loaded.base.config.is_encoder_decoder else batch


def rows_of(slots: Sequence[Slot]) -> list[Slot | None]:
    """Each version twice, apart from itself, and two rows of the bare base."""
    return [None, *slots, *slots, None]


def ours(base: Base, batch: dict[str, torch.Tensor], rows: list[Slot | None]) -> torch.Tensor:
    resident = base.loaded.base
    with torch.inference_mode(), resident.using(adapter_of(rows)):
        if not base.labels:
            return resident.net(**batch).logits
        outputs = resident.body(**batch)
    parts = []
    with torch.inference_mode():
        for slot, start, end in segments(rows):
            one = {key: value[start:end] for key, value in batch.items()}
            states = type(outputs)(**{key: value[start:end] for key, value in outputs.items()})
            bare = torch.zeros(end - start, len(base.labels), device=resident.device)
            parts.append(slot.head(states, one) if slot else bare)
    return torch.cat(parts)


def mixed_passes(base: Base) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor, list[Slot | None]]]:
    """Rows of one token and of twelve, of every version and of the bare base: the batch, our logits, and the rows."""
    with ExitStack() as pinned:
        slots = [pinned.enter_context(base.loaded.base.slots.pin(version)) for version in base.versions]
        rows = rows_of([slot for slot in slots if slot])
        for tokens in (1, 12):
            batch = batch_of(base, tokens, len(rows))
            yield batch, ours(base, batch, rows), rows


def rows_with(version: Version, rows: list[Slot | None]) -> list[int]:
    return [i for i, row in enumerate(rows) if row and row.version.ref == version.ref]


@pytest.mark.parametrize(("family", "quantize"), CASES, ids=[f"{f}-{q}" for f, q in CASES])
def test_rows_of_all_kinds_of_versions_answer_as_peft_does_with_each(
    family: str, quantize: str, bases: Callable[[str, str], Base]
) -> None:
    base = bases(family, quantize)
    assert base.loaded.base.mixes
    # LLM.int8 rounds the rows of a pass by what they share, so those are compared more loosely.
    atol = max(5e-2, INT8_ATOL) if quantize == "8bit" else 1e-4
    for batch, found, rows in mixed_passes(base):
        for version in base.versions:
            mine = rows_with(version, rows)
            with torch.inference_mode():  # all rows, because quantized kernels round by the shape of a pass
                theirs = base.peft(version)(**batch).logits[mine]
            assert torch.allclose(found[mine], theirs, atol=atol), (
                f"{version.ref}, {batch['input_ids'].shape}: {(found[mine] - theirs).abs().max()}"
            )
        if not base.labels:
            bare = ours(base, {key: value[[0, -1]] for key, value in batch.items()}, [None, None])
            assert torch.allclose(found[[0, -1]], bare, atol=atol)
            assert (found[1:-1] - ours(base, batch, [None] * len(rows))[1:-1]).abs().amax(-1).min() > 1e-3


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_in_bfloat16_every_version_changes_what_it_changes_in_peft(
    family: str, bases: Callable[[str, str], Base]
) -> None:
    """Rounded at every layer, so beside the change itself: 0.002 to 0.09 of it were seen."""
    base = bases(family, "bfloat16")
    assert base.loaded.base.net.dtype == torch.bfloat16
    for batch, found, rows in mixed_passes(base):
        for version in base.versions:
            mine, net = rows_with(version, rows), base.peft(version)
            with torch.inference_mode():
                theirs = net(**batch).logits[mine].float()
                with net.disable_adapter():
                    bare = net(**batch).logits[mine].float()
            assert (found[mine] - theirs).norm() < 0.2 * (theirs - bare).norm(), f"{version.ref}"


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_callers_of_different_versions_share_one_pass(family: str, bases: Callable[[str, str], Base]) -> None:
    base = bases(family, "none")
    labels, resident = base.loaded.classifier, base.loaded.base
    with ExitStack() as pinned:
        slots = [pinned.enter_context(resident.slots.pin(version)) for version in base.versions]
        asked = [(text, slot) for slot in slots for text in TEXTS if slot]
        alone = [labels.classify(text, slot) for text, slot in asked]
        passes: list[int] = []
        hook = resident.body.register_forward_hook(lambda module, args, outputs: passes.append(1))
        questions = [(_Question(labels._tokenize(text), slot), 0) for text, slot in asked]
        logits = labels._logits.map(None, questions)
        hook.remove()
    assert len(passes) == 1
    for one, together in zip(alone, logits, strict=True):
        assert list(one.values()) == pytest.approx(together.softmax(-1).tolist(), abs=ATOL)


def test_a_base_whose_rows_share_a_layer_answers_one_version_a_pass(tmp_path: Path) -> None:
    """DeBERTa transforms relative positions, which all rows share, by the layers of its queries and keys."""
    import transformers

    folder = tiny.make("bert", tmp_path / "deberta")
    torch.manual_seed(0)
    config = transformers.DebertaV2Config(
        vocab_size=600,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        max_position_embeddings=256,
        pad_token_id=0,
    )
    transformers.DebertaV2Model(config).save_pretrained(folder)
    resident = Loaded(ModelStore(tmp_path / "models", offline=True).resolve(str(folder)), "none").base
    assert not resident.mixes


def test_matrices_are_gathered_once_for_a_composition(bases: Callable[[str, str], Base]) -> None:
    base = bases("llama", "none")
    with ExitStack() as pinned:
        slots = [pinned.enter_context(base.loaded.base.slots.pin(version)) for version in base.versions[:3]]
        adapter = adapter_of([*slots, None])
        assert isinstance(adapter, MixedBatch)
        batch, made = batch_of(base, 1, 4), []
        stack = adapter._stack
        adapter._stack = lambda *args: (made.append(args[0]), stack(*args))[1]  # type: ignore[method-assign]
        with torch.inference_mode(), base.loaded.base.using(adapter):
            for _ in range(3):
                base.loaded.base.net(**batch)
    assert len(made) == len(set(made)) == len(base.loaded.base.layers)
    ranks = {each.a.shape[2] for each in adapter._stacks.values() if each}
    assert ranks == {8}, "8 beside 3 and 6, padded to one power of two"


def test_rows_of_one_version_need_no_adapter(bases: Callable[[str, str], Base]) -> None:
    base = bases("llama", "none")
    with base.loaded.base.slots.pin(base.versions[0]) as slot:
        assert adapter_of([slot, slot]) is slot
        assert adapter_of([None, None]) is None
    assert TASKS[base.task.name] is base.task
