"""advice.py and base_shapes.py: bases that suit the task, the language and the memory at hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from settings import REPOSITORY, Settings
from tasks import Columns, TabSpec
from training.estimate import advice, base_shapes
from training.estimate.machine import Room

ROOMY, TIGHT = Room(memory=20 * 10**9, disk=10**12), Room(memory=3 * 10**9, disk=10**12)
LABELS = TabSpec("c", "sentence-transformers/all-MiniLM-L6-v2", "text-classification", Columns("text", "label"))
TEXTS = TabSpec("g", "HuggingFaceTB/SmolLM2-135M-Instruct", "causal-lm", Columns(messages="messages"))


@pytest.mark.parametrize("spec", [LABELS, TEXTS], ids=["labels", "texts"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_three_to_five_for_each_task_and_language(spec: TabSpec, language: str, tmp_path: Path) -> None:
    found = advice.advise(spec, Settings(home=tmp_path), ROOMY, language)
    assert 3 <= len(found) <= advice.MOST and all(one.estimate.fits_memory for one in found)
    assert not any(one.here for one in found)
    if language == "zh":
        assert all(one.base.languages != "en" and "llama" not in one.base.id.lower() for one in found)


def test_little_memory_leaves_the_small_ones(tmp_path: Path) -> None:
    few, many = (advice.advise(TEXTS, Settings(home=tmp_path), room, "en") for room in (TIGHT, ROOMY))
    largest = [max(one.base.shape.parameters for one in found) for found in (few, many)]
    assert largest[0] < largest[1] and all(one.estimate.peak < TIGHT.memory for one in few)


@pytest.mark.parametrize(
    ("gpu", "quantize", "precision", "width"),
    [(False, "auto", "auto", 4), (False, "auto", "bfloat16", 2), (True, "none", "auto", 2),
     (True, "none", "float32", 4), (True, "auto", "auto", 1)],
)  # fmt: skip
def test_what_answering_takes_is_as_the_bases_are_held(
    gpu: bool, quantize: str, precision: str, width: int, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, quantize=quantize, precision=precision)
    for one in advice.advise(TEXTS, settings, replace(ROOMY, gpu=gpu), "en"):
        weights = one.base.shape.parameters
        assert one.serving == width * weights if width > 1 else one.serving < 1.5 * weights


SIZES = {"all-MiniLM-L6-v2": 22.7, "bert-base-chinese": 102, "roberta-base": 125, "ModernBERT-base": 149,
         "xlm-roberta-base": 278, "SmolLM2-135M-Instruct": 135, "SmolLM2-360M-Instruct": 362,
         "Qwen2.5-0.5B-Instruct": 494, "Qwen3-0.6B": 596, "Qwen2.5-1.5B-Instruct": 1544, "SmolLM2-1.7B-Instruct": 1711,
         "Llama-3.2-1B-Instruct": 1236, "Qwen2.5-7B-Instruct": 7616, "Qwen3-8B": 8191, "flan-t5-small": 77,
         "paraphrase-multilingual-MiniLM-L12-v2": 118}  # fmt: skip
"""Millions of parameters, as published."""


@pytest.mark.parametrize("base", base_shapes.BASES, ids=lambda base: base.key)
def test_the_sizes_of_the_table_add_up_to_what_is_published(base: base_shapes.Base) -> None:
    assert abs(base.shape.parameters / 1e6 / SIZES[base.key] - 1) < 0.06
    words = [json.loads((REPOSITORY / "ui" / "locales" / f"{name}.json").read_text()) for name in ("en", "zh-CN")]
    assert words[0][f"bases.why.{base.key}"].lower() == f"{base.why}.".lower() and words[1][f"bases.why.{base.key}"]


def test_the_sizes_are_those_of_the_files(minilm, smollm) -> None:
    from training.estimate.base_shapes import of_model

    for model in (minilm, smollm):
        listed, found = base_shapes.named(model.id).shape, of_model(model)
        assert (listed.width, listed.layers, listed.keys, listed.inner) == (
            found.width, found.layers, found.keys, found.inner,
        )  # fmt: skip
        assert abs(listed.multiplied / found.multiplied - 1) < 0.02
