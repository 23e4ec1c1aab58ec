"""Tests of training/estimate/base_shapes.py, and of the recommendation of bases in advice.py."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from settings import REPOSITORY, Settings
from tasks import Columns, TabSpec
from training.estimate import advice
from training.estimate.base_shapes import BASES, Base, shape_from_files
from training.estimate.machine import FreeResources

ROOMY, TIGHT = (FreeResources(memory=size * 10**9, disk=10**12) for size in (20, 3))
LABELS = TabSpec("c", "sentence-transformers/all-MiniLM-L6-v2", "text-classification", Columns("text", "label"))
TEXTS = TabSpec("g", "HuggingFaceTB/SmolLM2-135M-Instruct", "causal-lm", Columns(messages="messages"))


@pytest.mark.parametrize("spec", [LABELS, TEXTS], ids=["labels", "texts"])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_three_to_five_for_each_task_and_language(spec: TabSpec, language: str, tmp_path: Path) -> None:
    found = advice.advise(spec, Settings(home=tmp_path), ROOMY, language)
    assert 3 <= len(found) <= advice.MOST_BASES and all(one.estimate.fits_memory for one in found)
    assert not any(one.here for one in found)
    if language == "zh":
        assert all(one.base.languages != "en" and "llama" not in one.base.id.lower() for one in found)


def test_little_memory_leaves_the_small_ones(tmp_path: Path) -> None:
    few, many = (advice.advise(TEXTS, Settings(home=tmp_path), room, "en") for room in (TIGHT, ROOMY))
    largest = [max(one.base.shape.parameters for one in found) for found in (few, many)]
    assert largest[0] < largest[1] and all(one.estimate.peak < TIGHT.memory for one in few)


@pytest.mark.parametrize(
    ("gpu", "quantize", "precision", "width"),
    [
        (False, "auto", "auto", 4),
        (False, "auto", "bfloat16", 2),
        (True, "none", "auto", 2),
        (True, "none", "float32", 4),
        (True, "auto", "auto", 1),
    ],
)
def test_memory_of_answering_follows_how_bases_are_held(
    gpu: bool, quantize: str, precision: str, width: int, tmp_path: Path
) -> None:
    settings = Settings(home=tmp_path, quantize=quantize, precision=precision)
    for one in advice.advise(TEXTS, settings, replace(ROOMY, gpu=gpu), "en"):
        weights = one.base.shape.parameters
        assert one.serving == width * weights if width > 1 else one.serving < 1.5 * weights


SIZES = (22.7, 118, 102, 125, 149, 278, 135, 362, 494, 596, 1544, 1711, 1236, 7616, 8191, 77)
"""Millions of parameters of each base of the table, as published."""


@pytest.mark.parametrize(("base", "size"), [*zip(BASES, SIZES, strict=True)])
def test_the_sizes_of_the_table_add_up_to_those_published(base: Base, size: float) -> None:
    assert abs(base.shape.parameters / 1e6 / size - 1) < 0.06
    words = [json.loads((REPOSITORY / "ui" / "locales" / f"{name}.json").read_text()) for name in ("en", "zh-CN")]
    assert words[0][f"bases.why.{base.key}"].lower() == f"{base.why}.".lower() and words[1][f"bases.why.{base.key}"]


def test_the_sizes_of_the_table_are_those_of_the_files(minilm, smollm) -> None:
    for model in (minilm, smollm):
        listed, found = next(base.shape for base in BASES if base.id == model.id), shape_from_files(model)
        assert replace(listed, linear=(), parameters=0, stored=0) == replace(found, linear=(), parameters=0, stored=0)
        assert abs(listed.multiplied / found.multiplied - 1) < 0.02
