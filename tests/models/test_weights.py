"""Fingerprints stay the same across re-saves and differ for other weights."""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from errors import ModelError
from models.weights import identity, shape_id

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def tensors() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {f"layer.{i}.weight": torch.randn(20, 10, generator=generator) for i in range(4)}


def save(folder: Path, tensors: Tensors, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return folder


def test_other_values_and_other_shapes_differ(tmp_path: Path, tensors: Tensors) -> None:
    first = save(tmp_path / "a", tensors)
    second = save(tmp_path / "b", {**tensors, "layer.0.weight": tensors["layer.0.weight"] + 1})
    third = save(tmp_path / "c", {**tensors, "layer.0.weight": tensors["layer.0.weight"].T.contiguous()})
    assert identity(first) != identity(second) and shape_id(first) == shape_id(second)
    assert shape_id(first) != shape_id(third)
    assert len(identity(first)) == len(shape_id(first)) == 16


def test_float_types_give_the_same_identity(tmp_path: Path, tensors: Tensors) -> None:
    coarse = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    ids = {
        identity(save(tmp_path / "bf16", coarse)),
        identity(save(tmp_path / "f32", tensors)),
        identity(save(tmp_path / "f64", {name: tensor.double() for name, tensor in tensors.items()})),
    }
    assert len(ids) == 1
    exact = {name: torch.round(tensor * 8) / 8 for name, tensor in tensors.items()}
    half = {name: tensor.half() for name, tensor in exact.items()}
    assert identity(save(tmp_path / "f16", half)) == identity(save(tmp_path / "exact", exact))


def test_what_a_resave_changes_does_not_count(tmp_path: Path, tensors: Tensors) -> None:
    plain = identity(save(tmp_path / "plain", tensors))
    tied = {**tensors, "lm_head.weight": tensors["layer.0.weight"].clone(), "position_ids": torch.arange(5)}
    assert identity(save(tmp_path / "tied", tied)) == plain
    assert identity(save(tmp_path / "prefix", {f"bert.{k}": v for k, v in tensors.items()})) == plain


def test_shards_count_as_one(tmp_path: Path, tensors: Tensors) -> None:
    whole, parts = save(tmp_path / "whole", tensors), list(tensors.items())
    sharded = save(tmp_path / "parts", dict(parts[:2]), "model-1.safetensors")
    save(sharded, dict(parts[2:]), "model-2.safetensors")
    places = {name: f"model-{1 + i // 2}.safetensors" for i, name in enumerate(tensors)}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert (identity(sharded), shape_id(sharded)) == (identity(whole), shape_id(whole))


def header(entry: object) -> bytes:
    text = json.dumps({"w": entry}).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * 8


@pytest.mark.parametrize(
    "data",
    [b"", b"1234567", struct.pack("<Q", 10**12) + b"{}", struct.pack("<Q", 2) + b"[]", header(3),
     header({"dtype": "F32", "shape": [2], "data_offsets": [0, 80]}),
     header({"dtype": "F32", "shape": [2], "data_offsets": [-8, 8]}),
     header({"dtype": "F32", "shape": [2]})],
)  # fmt: skip
def test_damaged_files_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(ModelError, match="whole safetensors"):
        identity(tmp_path)


def test_large_files_are_cheap(tmp_path: Path) -> None:
    shape, count = (1000, 1000), 100
    size = shape[0] * shape[1] * 4
    entries = {
        f"w{i}": {"dtype": "F32", "shape": shape, "data_offsets": [i * size, (i + 1) * size]} for i in range(count)
    }
    text = json.dumps(entries).encode()
    with (tmp_path / "model.safetensors").open("wb") as file:  # 400 MB, sparse
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + count * size)
    started = time.process_time()
    identity(tmp_path)
    assert time.process_time() - started < 0.2


def test_rounding_is_torchs(tmp_path: Path) -> None:
    values = torch.from_numpy(np.random.default_rng(1).normal(size=64).astype("f4"))
    assert sys.byteorder == "little"
    one, two = save(tmp_path / "a", {"w": values}), save(tmp_path / "b", {"w": values.bfloat16()})
    assert identity(one) == identity(two)
