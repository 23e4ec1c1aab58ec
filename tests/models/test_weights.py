"""models/weights.py: digests of a base survive re-saves, and headers are checked before a library opens the file."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import save_file

from errors import AdapterError, ModelError
from models.weights import MOST_HEADER, MOST_TENSORS, identity, read_header, shape_id

Tensors = dict[str, torch.Tensor]
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.fixture
def tensors() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {f"layer.{i}.weight": torch.randn(20, 10, generator=generator) for i in range(4)}


def save(folder: Path, tensors: Tensors, name: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / name)
    return folder


def write(path: Path, header: Any, data: bytes = bytes(8), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_other_values_and_other_shapes_differ(tmp_path: Path, tensors: Tensors) -> None:
    first = save(tmp_path / "a", tensors)
    second = save(tmp_path / "b", {**tensors, "layer.0.weight": tensors["layer.0.weight"] + 1})
    third = save(tmp_path / "c", {**tensors, "layer.0.weight": tensors["layer.0.weight"].T.contiguous()})
    assert identity(first) != identity(second) and shape_id(first) == shape_id(second)
    assert shape_id(first) != shape_id(third)
    assert len(identity(first)) == len(shape_id(first)) == 16


def test_the_identity_is_that_of_every_float_type(tmp_path: Path, tensors: Tensors) -> None:
    exact = {name: torch.round(tensor * 8) / 8 for name, tensor in tensors.items()}
    for held, types in ((tensors, "bfloat16 float32 float64"), (exact, "float16 float32")):
        saved = [
            save(tmp_path / kind, {name: tensor.to(getattr(torch, kind)) for name, tensor in held.items()})
            for kind in types.split()
        ]
        assert len({identity(folder) for folder in saved}) == 1


def test_the_identity_survives_ties_buffers_prefixes_and_shards(tmp_path: Path, tensors: Tensors) -> None:
    plain, parts = save(tmp_path / "plain", tensors), list(tensors.items())
    tied = {**tensors, "lm_head.weight": tensors["layer.0.weight"].clone(), "position_ids": torch.arange(5)}
    assert identity(save(tmp_path / "tied", tied)) == identity(plain)
    assert identity(save(tmp_path / "prefix", {f"bert.{k}": v for k, v in parts})) == identity(plain)
    sharded = save(tmp_path / "parts", dict(parts[:2]), "model-1.safetensors")
    save(sharded, dict(parts[2:]), "model-2.safetensors")
    places = {name: f"model-{1 + i // 2}.safetensors" for i, name in enumerate(tensors)}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert (identity(sharded), shape_id(sharded)) == (identity(plain), shape_id(plain))


@pytest.mark.parametrize(
    "header",
    [b"[]", {"w": 3}, {"w": ENTRY | {"data_offsets": [0, 80]}}, {"w": ENTRY | {"data_offsets": [-8, 8]}},
     {"w": {"dtype": "F32", "shape": [2]}}, b"[" * 100_000],
)  # fmt: skip
def test_damaged_or_cut_weights_are_refused(tmp_path: Path, header: Any) -> None:
    path = write(tmp_path / "model.safetensors", header)
    for cut in (None, 7, 0):
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ModelError, match="whole safetensors"):
            identity(tmp_path)


def test_the_identity_reads_little_of_large_files(tmp_path: Path) -> None:
    shape, count = (1000, 1000), 100
    size = shape[0] * shape[1] * 4
    header = {
        f"w{i}": {"dtype": "F32", "shape": shape, "data_offsets": [i * size, (i + 1) * size]} for i in range(count)
    }
    path = write(tmp_path / "model.safetensors", header, b"")
    with path.open("r+b") as file:  # 400 MB, sparse
        file.truncate(path.stat().st_size + count * size)
    before = psutil.Process().io_counters().read_chars
    identity(tmp_path)
    assert psutil.Process().io_counters().read_chars - before < 4 * 2**20


def test_the_header_of_an_ordinary_adapter_gives_its_shapes(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, 4), "b": torch.zeros(2, dtype=torch.bfloat16), "c": torch.zeros(1, 1).half()}
    save_file(tensors, tmp_path / "w", metadata={"format": "pt"})
    assert read_header(tmp_path / "w", "mine") == {"a": (3, 4), "b": (2,), "c": (1, 1)}


@pytest.mark.parametrize(
    ("header", "data", "length"),
    [
        ({"a": ENTRY}, bytes(9), None), ({"a": ENTRY}, bytes(7), None), ({"a": ENTRY}, bytes(8), 2**60),
        ({"a": ENTRY, "b": ENTRY}, bytes(8), None), (b"[1]", b"", None), (b"{", b"", None),
        ({"a": ENTRY | {"shape": [3]}}, bytes(8), None), ({"a": ENTRY | {"shape": [-2, -1]}}, bytes(8), None),
        ({"a": ENTRY | {"shape": "2"}}, bytes(8), None), ({"a": 3}, bytes(8), None),
        ({str(n): ENTRY | {"shape": [0], "data_offsets": [0, 0]} for n in range(MOST_TENSORS + 1)}, b"", None),
        (b" " * 2_000_001, b"", None), (b"[" * 100_000, b"", None),
        (json.dumps({"a": ENTRY}).encode() + b" " * MOST_HEADER, bytes(8), None),
    ],
)  # fmt: skip
def test_r45_a_header_that_is_bloated_or_lies_is_refused(tmp_path: Path, header: Any, data: bytes, length: Any) -> None:
    with pytest.raises(AdapterError, match="missing, cut short or damaged"):
        read_header(write(tmp_path / "w", header, data, length), "theirs")
    with pytest.raises(AdapterError, match="missing, cut short or damaged"):
        read_header(tmp_path / "absent", "theirs")


@pytest.mark.parametrize("kind", ["F64", "I64", "U8", "F8_E4M3", 7])
def test_r45_types_that_are_not_served_are_refused_by_name(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(AdapterError, match=f"a is held as {kind}"):
        read_header(write(tmp_path / "w", {"a": ENTRY | {"dtype": kind}}), "theirs")
