"""Checkpoints of a run: everything that it needs to continue, in safetensors and JSON, without pickles.

    runs/<id>/checkpoints/<step>/   state.safetensors  state.json

A checkpoint appears by one rename, so that a run killed at any moment has the previous one. It records the
configuration, the data and the libraries that made it: with others, the resumed run would be another one.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from errors import RunError
from store import files
from training.config import TrainConfig

FOLDER, STATE, TENSORS = "checkpoints", "state.json", "state.safetensors"
KEPT = 2
"""Number of checkpoints that are kept."""
UNBOUND = {"name", "promote", "anyway", "card_rows", "tab_model", "gradient_checkpointing"}
"""Fields of the configuration that may change, because they do not affect what is learned."""
FILES = {"data", "held_out_data", "corrections"}
"""Fields that may change, because the fingerprint of the data covers the content of the files."""
LIBRARIES = ("torch", "transformers", "peft")

Tensors = dict[str, torch.Tensor]


def binding(config: TrainConfig, data: str) -> dict[str, Any]:
    """Return the values that must be the same to resume; `data` is the fingerprint of the prepared rows."""
    chosen = {key: value for key, value in asdict(config).items() if key not in UNBOUND | FILES}
    return {"data": data, **chosen, **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def save(folder: Path, step: int, tensors: Tensors, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of `step`, and remove all but the newest two. Raises `OSError`."""
    target = folder / FOLDER / f"{step:09d}"
    if target.exists():
        return
    with files.staging(target.parent) as staging:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, staging / TENSORS)
        files.write_json(staging / STATE, {"step": step, **state})
        files.seal(staging, target)
    for old in _all(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, bound: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]] | None:
    """Return tensors and state of the newest readable checkpoint, or None.

    Raises `RunError` where it was saved with another `bound`.
    """
    for path in reversed(_all(folder)):
        try:
            state: dict[str, Any] = files.read_json(path / STATE)
            tensors: Tensors = load_file(path / TENSORS)
        except (OSError, ValueError, SafetensorError):
            continue
        _check(state.get("bound") or {}, bound)
        return tensors, state
    return None


def remove(folder: Path) -> None:
    """Remove every checkpoint of a run."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / FOLDER).glob("[0-9]*") if (path / STATE).exists())


def _check(saved: Mapping[str, Any], bound: Mapping[str, Any]) -> None:
    changed = [
        "the rows are others" if key == "data" else f"{key} was {saved.get(key)} and is {value}"
        for key, value in bound.items()
        if saved.get(key) != value
    ]
    if changed:
        raise RunError(
            "This run cannot go on from its checkpoint.",
            f"It would not be the same run: {'; '.join(changed[:4])}.",
            "Start a new run from this adapter instead, with start_from.",
        )
