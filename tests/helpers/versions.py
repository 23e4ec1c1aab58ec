"""Published versions, and bases, with a change: another name, other tensors, configuration or facts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from store.adapters import MANIFEST, WEIGHTS, AdapterStore, Version

Tensors = dict[str, torch.Tensor]


def copy_of(
    version: Version, home: Path, name: str, change: Callable[[Path], None] | None = None, **facts: object
) -> Version:
    """Publish a version again under another name, after `change` was made to its folder, with other `facts`."""
    store = AdapterStore(home)
    with store.staging() as staging:
        shutil.copytree(version.path, staging, dirs_exist_ok=True)
        (staging / MANIFEST).unlink()
        if change:
            change(staging)
        kept = {k: v for k, v in version.manifest.items() if k not in ("files", "name", "number")}
        return store.publish(staging, name, {**kept, **facts})


def tensors(change: Callable[[Tensors], object]) -> Callable[[Path], None]:
    """Make a change of a version's tensors."""

    def apply(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS)

    return apply


def config(**changes: object) -> Callable[[Path], None]:
    """Make a change of a version's PEFT configuration."""

    def apply(folder: Path) -> None:
        values = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**values, **changes}))

    return apply


def first(found: Tensors, part: str) -> str:
    """Return the first name that contains `part`."""
    return next(key for key in sorted(found) if part in key)


def fill(part: str, value: float) -> Callable[[Tensors], None]:
    """Make a change that sets every tensor whose name contains `part` to one value."""

    def apply(found: Tensors) -> None:
        for key in found:
            if part in key:
                found[key] = torch.full_like(found[key], value)

    return apply


def calm(folder: Path) -> Path:
    """Scale T5's attention down: unlike others' it is not scaled, and large random weights make it nearly a step.

    Without this PEFT in float32 is off by 5e-4 from PEFT in float64, and a slot by 4e-4.
    """
    held = load_file(folder / "model.safetensors")
    for key in held:
        if key.endswith(("Attention.q.weight", "EncDecAttention.k.weight")):
            held[key] = held[key] * 0.1
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
