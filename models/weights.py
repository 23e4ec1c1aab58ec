"""Fingerprints of safetensors weights, read from the headers and a few bytes of each tensor; no torch.

Two digests. `shape_id` says what an adapter has to fit: tensor names and shapes. `identity` says which weights these
are: shape and first values of each tensor. It leaves out names, order, sharding, float type, tied copies and integer
buffers, because another version of the library that saves the same model changes exactly these.
Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length, JSON header, data).
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
"""Bytes; the format's own cap."""
LENGTH = 16
"""Hex digits of a digest."""


@dataclass(frozen=True)
class Tensor:
    """One float tensor: its name, its shape and its first values, rounded to bfloat16 (the coarsest type we store)."""

    name: str
    shape: tuple[int, ...]
    sample: bytes


def weight_files(folder: Path) -> list[Path]:
    """The files that hold a folder's weights: the shards of its index, else `model.safetensors`, else all it has."""
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text("utf-8"))
        return sorted(folder / name for name in set(index["weight_map"].values()))
    single = folder / SINGLE
    return [single] if single.is_file() else sorted(folder.glob("*.safetensors"))


def tensors(folder: Path) -> Iterator[Tensor]:
    """Every float tensor of a folder's weights; raises `ModelError` for a damaged file."""
    for path in weight_files(folder):
        try:
            with path.open("rb") as file:
                yield from _tensors(file, path.stat().st_size)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise ModelError(
                f"The weights of {folder.name} cannot be read.",
                f"{path.name} is not a whole safetensors file.",
                "Delete the model and download it again.",
            ) from error


def identity(folder: Path) -> str:
    """A short digest of the values, the same after a re-save by another version or with other shards."""
    return _hash({f"{tensor.shape} {tensor.sample.hex()}" for tensor in tensors(folder)})


def shape_id(folder: Path) -> str:
    """A short digest of names and shapes alone."""
    return _hash({f"{tensor.name} {tensor.shape}" for tensor in tensors(folder)})


def _hash(lines: set[str]) -> str:
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:LENGTH]


def _tensors(file: BinaryIO, size: int) -> Iterator[Tensor]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > min(HEADER_LIMIT, size - 8):
        raise ValueError("header longer than the file")
    header = json.loads(file.read(length))
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in FLOATS:
            continue
        start, end = entry["data_offsets"]
        if not 0 <= start <= end <= size - 8 - length:
            raise ValueError("tensor outside the file")
        file.seek(8 + length + start)
        kind = np.dtype(FLOATS[entry["dtype"]])
        raw = file.read(min(SAMPLE * kind.itemsize, end - start))
        yield Tensor(name, tuple(entry["shape"]), _bfloat16(np.frombuffer(raw, kind), entry["dtype"]))


def _bfloat16(values: NDArray[np.generic], dtype: str) -> bytes:
    if dtype == "BF16":
        return values.tobytes()
    bits = values.astype("<f4").view("<u4").astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to the nearest, ties to even, as torch does
    return rounded.astype("<u2").tobytes()


MOST_HEADER = 2_000_000
"""Bytes: 20,000 tensors with names of 50 characters."""
MOST_TENSORS = 20_000
WIDTHS = {"F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number of each type that is served."""

Shapes = Mapping[str, tuple[int, ...]]


def read_header(path: Path, name: str) -> Shapes:
    """Each tensor's shape; `name` is what messages call the adapter. Raises `AdapterError` for anything unusual."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MOST_HEADER, size - 8):
                raise ValueError("a header longer than the file, or than any adapter needs")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        if len(header) > MOST_TENSORS:
            raise ValueError(f"{len(header):,} tensors")
        spans = sorted(_span(key, entry) for key, entry in header.items())
        if [start for start, _ in spans] + [size - 8 - length] != [0] + [end for _, end in spans]:
            raise ValueError("holes, overlaps or a tail")
        return {key: tuple(entry["shape"]) for key, entry in header.items()}
    except AdapterError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        why = f"Its {path.name} is missing, cut short or damaged."
        raise AdapterError(f"{name} was refused.", why, "What answered before goes on answering.") from error


def _span(key: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    """Where a tensor lies in the data; raises `ValueError` where that is not what its type and shape take."""
    kind, shape = entry["dtype"], entry["shape"]
    if kind not in WIDTHS:
        raise AdapterError("An adapter was refused.", f"{key[:200]} is held as {str(kind)[:20]}; float32, float16 and "
                           "bfloat16 can be served.", "Save it again as one of these.")  # fmt: skip
    start, end = entry["data_offsets"]
    if (
        not all(type(n) is int and n >= 0 for n in (*shape, start, end))
        or end - start != math.prod(shape) * WIDTHS[kind]
    ):
        raise ValueError("a tensor of another size than its shape")
    return start, end
