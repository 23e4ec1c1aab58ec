"""Checkpoints of a run: everything that decides how it goes on, in safetensors and JSON, without pickles.

    runs/<id>/checkpoints/<step>/   state.safetensors  state.json

A checkpoint appears by one rename, so that a run killed at any moment has the one before. It is bound to the
configuration, the data and the libraries that made it: with others, the run would not be the same.
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
"""Newest checkpoints that are kept."""
FREE = {"name", "promote", "anyway", "card_rows", "tab_model", "gradient_checkpointing"}
FILES = {"data", "held_out_data", "corrections"}
"""Fields of the configuration that may change: they do not decide what is learned, and the files' content is bound."""
LIBRARIES = ("torch", "transformers", "peft")

Tensors = dict[str, torch.Tensor]


def binding(config: TrainConfig, data: str) -> dict[str, Any]:
    """Return everything that a checkpoint is bound to; `data` is the fingerprint of the prepared rows."""
    chosen = {key: value for key, value in asdict(config).items() if key not in FREE | FILES}
    return {"data": data, **chosen, **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def save(folder: Path, step: int, tensors: Tensors, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of `step`, and remove all but the newest two. Raises `OSError`."""
    root = folder / FOLDER
    target = root / f"{step:09d}"
    if target.exists():
        return
    with files.staging(root) as staging:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, staging / TENSORS)
        files.write_json(staging / STATE, {"step": step, **state})
        files.seal(staging, target)
    for old in _all(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, bound: Mapping[str, Any]) -> tuple[Tensors, dict[str, Any]] | None:
    """Return tensors and state of the newest whole checkpoint, or None; raises `RunError` for one of another run."""
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


def _check(was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [
        "the rows are others" if key == "data" else f"{key} was {was.get(key)} and is {now[key]}"
        for key in now
        if was.get(key) != now[key]
    ]
    if changed:
        raise RunError(
            "This run cannot go on from its checkpoint.",
            f"It would not be the same run: {'; '.join(changed[:4])}.",
            "Start a new run from this adapter instead, with start_from.",
        )
