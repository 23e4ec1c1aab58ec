"""The header of an adapter's safetensors file, looked at before a library opens the file.

Format: https://huggingface.co/docs/safetensors (8 bytes little-endian header length, JSON header, data). It allows a
header of 100 MB, and types that nobody computes in.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import AdapterError

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
