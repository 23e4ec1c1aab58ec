"""Merges a version into its base, as a model of its own in safetensors, in a folder or a zip.

A merged model needs neither Graft nor PEFT: `AutoModelForSequenceClassification.from_pretrained("tickets-model")`.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError

from errors import AdapterError
from models.resolve import Model, ModelStore, Origins, fits
from models.tokenizer import load_tokenizer
from settings import Settings
from store import files
from store.adapters import Version
from tasks import TASKS
from training.publish.other_base import load_base

Say = Callable[[str], object]
"""Is called with each phase: merge, write, pack."""


def export_merged(version: Version, target: Path, settings: Settings, base: str | None, say: Say) -> None:
    """Find the base of a version, or take `base`, and merge them into `target`. Raises as `merge`."""
    models = ModelStore(settings.home / "models", settings.offline)
    key = base or Origins(settings.home, settings.models.values()).id_of(version)
    model = (models.resolve if base or os.path.isabs(key) else models.resolve_hub_id)(key)
    merge(version, model, target, say)


def merge(version: Version, model: Model, target: Path, say: Say = bool) -> Path:
    """Write the base with the version's matrices added to its own, in float32, and the tokenizer; returns `target`.

    `target` is a folder, or a zip if its name ends in .zip; it appears whole or not at all. Raises `AdapterError` where
    it exists or the base is another than the version was made for, `ModelError` where there is no memory for the base,
    and `OSError`.
    """
    if target.exists():
        raise AdapterError(f"{target} is already there.", "", "Choose another name.")
    if not fits(version, model):
        why = f"It was made for {version.manifest['base']['id']}, not for {model.id}."
        raise AdapterError(f"{version.ref} cannot be merged.", why, "Name that base with --base.")
    version.check_files()
    net, _ = load_base(model, TASKS[version.manifest["task"]].auto_class, "none", torch.float32, version.labels)
    with files.staging(target.absolute().parent) as staging:
        say("merge")
        merged = PeftModel.from_pretrained(net, version.path).merge_and_unload(safe_merge=True)
        say("write")
        folder = staging / f"{version.name}-{version.number}"
        try:
            merged.save_pretrained(folder)
        except SafetensorError as error:  # raised for a full disk
            raise OSError(str(error)) from error
        load_tokenizer(model).save_pretrained(folder)
        shutil.copyfile(version.path / "README.md", folder / "README.md")
        if target.suffix == ".zip":
            say("pack")
            packed = _pack(folder)
            files.sync(packed)
            packed.rename(target)
        else:
            files.seal(folder, target.absolute())
    return target


def _pack(folder: Path) -> Path:
    """Move the files of a folder into a zip beside it; returns the zip."""
    packed = folder.parent / "packed.zip"
    # Weights hardly compress, and it would take minutes.
    with zipfile.ZipFile(packed, "x", zipfile.ZIP_STORED) as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, f"{folder.name}/{path.name}")
            path.unlink()
    return packed
