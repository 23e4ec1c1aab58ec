"""Read headers and first values of safetensors files: digests of a base's weights, checks of an adapter's.

`shape_id`, the digest of tensor names and shapes, decides which adapters fit a base. `identity`, the digest of the
shape and first values of each tensor, identifies the weights; it does not depend on names, order, sharding, float type,
tied copies and integer buffers, which change when another version of the library saves the same model. Format:
https://huggingface.co/docs/safetensors (8 bytes little-endian header length, JSON header, data). Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from errors import AdapterError, ModelError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
SAMPLE = 64
"""Values read of each tensor: 256 bytes of a float32 one."""
HEADER_LIMIT = 100_000_000
"""Bytes of a base's header; the format's own limit."""
MOST_HEADER = 2_000_000
"""Bytes of an adapter's header: 20,000 tensors with names of 50 characters."""
MOST_TENSORS = 20_000
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number of each type that adapters may have."""
LENGTH = 16
"""Hex digits of a digest."""

Shapes = Mapping[str, tuple[int, ...]]
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error)


@dataclass(frozen=True)
class Tensor:
    """One float tensor: its name, its shape and its first values, rounded to bfloat16."""

    name: str
    shape: tuple[int, ...]
    sample: bytes


def weight_files(folder: Path) -> list[Path]:
    """List the files of a folder's weights: the shards of its index, else `model.safetensors`, else all safetensors."""
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text("utf-8"))
        return sorted(folder / name for name in set(index["weight_map"].values()))
    single = folder / SINGLE
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def tensors(folder: Path) -> Iterator[Tensor]:
    """Yield every float tensor of a folder's weights; raises `ModelError` for a damaged file."""
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                yield from _tensors(file, path.stat().st_size)
        except MALFORMED as error:
            raise ModelError(
                f"The weights of {folder.name} cannot be read.",
                f"{path.name} is not a whole safetensors file.",
                "Delete the model and download it again.",
            ) from error


def identity(folder: Path) -> str:
    """Return a digest of the first values, the same after a re-save by another version or with other shards."""
    return _digest({f"{tensor.shape} {tensor.sample.hex()}" for tensor in tensors(folder)})


def shape_id(folder: Path) -> str:
    """Return a digest of names and shapes."""
    return _digest({f"{tensor.name} {tensor.shape}" for tensor in tensors(folder)})


def _digest(lines: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:LENGTH]


def _header(file: BinaryIO, size: int, limit: int) -> tuple[dict[str, Any], int]:
    """Read the entries of tensors, and the offset of the data; raises one of `MALFORMED`."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(limit, size - 8):
        raise ValueError("a header longer than the file, or than it may be")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def _tensors(file: BinaryIO, size: int) -> Iterator[Tensor]:
    header, data = _header(file, size, HEADER_LIMIT)
    for name, entry in header.items():
        if entry["dtype"] not in FLOATS:
            continue
        start, end = entry["data_offsets"]
        if not 0 <= start <= end <= size - data:
            raise ValueError("a tensor outside the file")
        file.seek(data + start)
        kind = np.dtype(FLOATS[entry["dtype"]])
        raw = file.read(min(SAMPLE * kind.itemsize, end - start))
        yield Tensor(name, tuple(entry["shape"]), _bfloat16(np.frombuffer(raw, kind), entry["dtype"]))


def _bfloat16(values: NDArray[np.generic], dtype: str) -> bytes:
    if dtype == "BF16":
        return values.tobytes()
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest, ties to even, as torch does
    return rounded.astype("<u2").tobytes()


def read_header(path: Path, name: str) -> Shapes:
    """Return the shapes of an adapter's tensors; `name` is the adapter's in messages.

    Raises `AdapterError` for a header that is too large, for a type that is not served, and unless the tensors fill the
    file without gaps and overlaps.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header, data = _header(file, size, MOST_HEADER)
        if len(header) > MOST_TENSORS:
            raise ValueError(f"{len(header):,} tensors")
        spans = sorted(_span(key, entry) for key, entry in header.items())
        if [start for start, _ in spans] + [size - data] != [0] + [end for _, end in spans]:
            raise ValueError("holes, overlaps or a tail")
        return {key: tuple(entry["shape"]) for key, entry in header.items()}
    except MALFORMED as error:
        why = f"Its {path.name} is missing, cut short or damaged."
        raise AdapterError(f"{name} was refused.", why, "What answered before goes on answering.") from error


def _span(key: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    """Return the start and end of a tensor in the data; raises `ValueError` for another size than its shape takes."""
    kind, shape = entry["dtype"], entry["shape"]
    if kind not in WIDTHS:
        why = f"{key[:200]} is held as {str(kind)[:20]}; float32, float16 and bfloat16 can be served."
        raise AdapterError("An adapter was refused.", why, "Save it again as one of these.")
    start, end = entry["data_offsets"]
    whole = all(type(n) is int and n >= 0 for n in (*shape, start, end))
    if not whole or end - start != math.prod(shape) * WIDTHS[kind]:
        raise ValueError("a tensor of another size than its shape")
    return start, end
