"""Take a version away: as a zip of its adapter, or merged into its base as a model of its own in safetensors.

    python -m training.publish.export tickets@1 tickets.zip
    python -m training.publish.export tickets@1 tickets-model --merged
    python -m training.publish.export tickets@1 tickets-model.zip --merged

A merged model needs neither Graft nor PEFT: `AutoModelForSequenceClassification.from_pretrained("tickets-model")`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import SafetensorError

from errors import AdapterError, GraftError
from models import memory_use
from models.loading import load_model
from models.resolve import Model, ModelStore, Origins, fits
from models.tokenizer import load_tokenizer
from settings import Settings
from store import files
from store.adapters import AdapterStore, Version
from store.archive import pack
from tasks import TASKS

PHASES = ("base", "merge", "write", "pack")
"""What is said on the way, a line each, when a merged model is written into a zip."""
NICENESS = 5
"""Serving in the same machine comes first."""


def merge(version: Version, model: Model, target: Path, say: Callable[[str], object] = lambda phase: None) -> Path:
    """Write the folder `target`: the base with the version's matrices added to its own, in float32, and the tokenizer.

    It appears whole or not at all. `say` is told each phase. Raises `AdapterError` where the base is another than the
    version was made for, `ModelError` where there is no memory for it, and `OSError`.
    """
    if target.exists():
        raise AdapterError(f"{target} is already there.", "", "Choose another folder.")
    if not fits(version, model):
        why = f"It was made for {version.manifest['base']['id']}, not for {model.id}."
        raise AdapterError(f"{version.ref} cannot be merged.", why, "Name that base with --base.")
    version.check_files()
    memory_use.require(model, "none", torch.float32.itemsize)
    labels = dict(enumerate(version.labels))
    named: dict[str, Any] = {
        "num_labels": len(labels),
        "id2label": labels,
        "label2id": {label: i for i, label in labels.items()},
    }
    options = {**named, "ignore_mismatched_sizes": True} if labels else {}
    net, _ = load_model(model, TASKS[version.manifest["task"]].auto_class, dtype=torch.float32, **options)
    staging = files.new_staging(target.absolute().parent)
    try:
        say("merge")
        merged = PeftModel.from_pretrained(net, version.path).merge_and_unload(safe_merge=True)
        say("write")
        try:
            merged.save_pretrained(staging)
        except SafetensorError as error:  # what the library makes of a full disk
            raise OSError(str(error)) from error
        load_tokenizer(model).save_pretrained(staging)
        shutil.copyfile(version.path / "README.md", staging / "README.md")
        files.seal(staging, target.absolute())
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def merge_into_zip(version: Version, model: Model, target: Path) -> Path:
    """Write a merged model as one zip of safetensors, whole or not at all, printing each phase."""
    if target.exists():
        raise AdapterError(f"{target} is already there.", "", "Choose another name.")
    with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=files.STAGING_PREFIX) as work:
        folder = merge(version, model, Path(work) / f"{version.name}-{version.number}", _print)
        _print("pack")
        packed = Path(work) / "packed.zip"
        # Weights hardly become smaller, and would take minutes to be made so.
        with zipfile.ZipFile(packed, "x", zipfile.ZIP_STORED) as archive:
            for path in sorted(folder.iterdir()):
                archive.write(path, f"{folder.name}/{path.name}")
                path.unlink()
        files.sync(packed)
        packed.rename(target)
    return target


def _print(phase: str) -> None:
    print(phase, flush=True)


def _merged(version: Version, base: str | None, target: Path, settings: Settings) -> None:
    models = ModelStore(settings.home / "models", settings.offline)
    key = base or Origins(settings.home, settings.models.values()).id_of(version)
    model = (models.resolve if base or os.path.isabs(key) else models.named)(key)
    if target.suffix == ".zip":
        merge_into_zip(version, model, target)
    else:
        merge(version, model, target)


def main(arguments: Sequence[str]) -> int:
    """Export one version; the exit code: 0 done, 2 refused."""
    parser = argparse.ArgumentParser("python -m training.publish.export", description="Take a version away.")
    parser.add_argument("version", help="such as tickets@1")
    parser.add_argument("target", type=Path, help="the zip to write, or with --merged the folder or zip")
    parser.add_argument("--merged", action="store_true", help="merge it into its base, as a model of its own")
    parser.add_argument("--base", help="where that base lies, if it is a folder that no run here was made on")
    options = parser.parse_args(arguments)
    try:
        settings = Settings.from_env()
        version = AdapterStore(settings.home, settings.shipped).get(options.version)
        if options.merged:
            os.nice(NICENESS)
            _merged(version, options.base, options.target, settings)
        else:
            pack(version, options.target)
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{options.target} could not be written. {error.strerror or error}.", file=sys.stderr)
        return 2
    print(options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
