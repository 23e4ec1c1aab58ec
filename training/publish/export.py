"""Merges a version into its base, as a model of its own in safetensors, in a folder or a zip.

A merged model needs neither Graft nor PEFT: `AutoModelForSequenceClassification.from_pretrained("tickets-model")`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError

from errors import AdapterError
from models.loading import load_model, require_memory
from models.resolve import Model, ModelStore, Origins, fits
from models.tokenizer import load_tokenizer
from settings import Settings
from store import files
from store.adapters import Version
from tasks import TASKS

Say = Callable[[str], object]
"""Is called with each phase: merge, write, pack."""


def export_merged(version: Version, target: Path, settings: Settings, base: str | None, say: Say) -> None:
    """Merge a version into `target`, a folder or a name that ends in .zip; `base` is where its base is, if not known.

    Raises `GraftError` and `OSError`.
    """
    models = ModelStore(settings.home / "models", settings.offline)
    key = base or Origins(settings.home, settings.models.values()).id_of(version)
    model = (models.resolve if base or os.path.isabs(key) else models.resolve_hub_id)(key)
    write = merge_into_zip if target.suffix == ".zip" else merge
    write(version, model, target, say)


def merge(version: Version, model: Model, target: Path, say: Say = bool) -> Path:
    """Write the folder `target`: the base with the version's matrices added to its own, in float32, and the tokenizer.

    It appears whole or not at all. Raises `AdapterError` where the base is another than the version was made for,
    `ModelError` where there is no memory for it, and `OSError`.
    """
    if target.exists():
        raise AdapterError(f"{target} is already there.", "", "Choose another folder.")
    if not fits(version, model):
        why = f"It was made for {version.manifest['base']['id']}, not for {model.id}."
        raise AdapterError(f"{version.ref} cannot be merged.", why, "Name that base with --base.")
    version.check_files()
    require_memory(model, "none", torch.float32.itemsize)
    options: dict[str, Any] = {}
    if version.labels:
        labels = dict(enumerate(version.labels))
        options = {"num_labels": len(labels), "id2label": labels, "label2id": {v: k for k, v in labels.items()}}
        options["ignore_mismatched_sizes"] = True
    net, _ = load_model(model, TASKS[version.manifest["task"]].auto_class, dtype=torch.float32, **options)
    with files.staging(target.absolute().parent) as staging:
        say("merge")
        merged = PeftModel.from_pretrained(net, version.path).merge_and_unload(safe_merge=True)
        say("write")
        try:
            merged.save_pretrained(staging)
        except SafetensorError as error:  # raised for a full disk
            raise OSError(str(error)) from error
        load_tokenizer(model).save_pretrained(staging)
        shutil.copyfile(version.path / "README.md", staging / "README.md")
        files.seal(staging, target.absolute())
    return target


def merge_into_zip(version: Version, model: Model, target: Path, say: Say = bool) -> Path:
    """Write a merged model as one zip of safetensors, whole or not at all. Raises as `merge`."""
    if target.exists():
        raise AdapterError(f"{target} is already there.", "", "Choose another name.")
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=files.STAGING_PREFIX) as work:
        folder = merge(version, model, Path(work) / f"{version.name}-{version.number}", say)
        say("pack")
        packed = Path(work) / "packed.zip"
        # Weights hardly compress, and it would take minutes.
        with zipfile.ZipFile(packed, "x", zipfile.ZIP_STORED) as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, f"{folder.name}/{path.name}")
                path.unlink()
        files.sync(packed)
        packed.rename(target)
    return target
