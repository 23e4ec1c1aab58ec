"""models/weights.py: what a file of weights says of itself, before a library opens it."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from errors import AdapterError
from models.weights import MOST_HEADER, MOST_TENSORS, read_header

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(path: Path, header: Any, data: bytes = bytes(8), length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_the_shapes_of_an_ordinary_file(tmp_path: Path) -> None:
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
    with pytest.raises(AdapterError, match="cut short or damaged"):
        read_header(written(tmp_path / "w", header, data, length), "theirs")


@pytest.mark.parametrize("kind", ["F64", "I64", "U8", "F8_E4M3", 7])
def test_r45_types_that_are_not_served_are_refused_by_name(tmp_path: Path, kind: Any) -> None:
    with pytest.raises(AdapterError, match=f"a is held as {kind}"):
        read_header(written(tmp_path / "w", {"a": ENTRY | {"dtype": kind}}), "theirs")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="missing"):
        read_header(tmp_path / "w", "theirs")
