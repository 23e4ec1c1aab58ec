"""Take a version away: as a zip of its adapter, or merged into its base as a model of its own in safetensors.

    python -m training.export tickets@1 tickets.zip
    python -m training.export tickets@1 tickets-model --merged

A merged model needs neither Graft nor PEFT: `AutoModelForSequenceClassification.from_pretrained("tickets-model")`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from errors import AdapterError, GraftError
from settings import Settings
from store import files
from store.adapters import AdapterStore, Version
from store.archive import pack
from store.loading import load_model
from store.models import Model, ModelStore
from store.tokenizers import load_tokenizer
from tasks import TASKS


def merge(version: Version, model: Model, target: Path) -> Path:
    """Write the folder `target`: the base with the version's matrices added to its own, in float32, and the tokenizer.

    It appears whole or not at all. Raises `AdapterError` where the base is another than the version was made for.
    """
    if target.exists():
        raise AdapterError(f"{target} is already there.", "", "Choose another folder.")
    if not version.fits(model):
        why = f"It was made for {version.manifest['base']['id']}, not for {model.id}."
        raise AdapterError(f"{version.ref} cannot be merged.", why, "Name that base with --base.")
    version.check_files()
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
        merged = PeftModel.from_pretrained(net, version.path).merge_and_unload(safe_merge=True)
        merged.save_pretrained(staging)
        load_tokenizer(model).save_pretrained(staging)
        shutil.copyfile(version.path / "README.md", staging / "README.md")
        files.seal(staging, target.absolute())
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def main(arguments: Sequence[str]) -> int:
    """Export one version; the exit code: 0 done, 2 refused."""
    parser = argparse.ArgumentParser("python -m training.export", description="Take a version away.")
    parser.add_argument("version", help="such as tickets@1")
    parser.add_argument("target", type=Path, help="the zip, or with --merged the folder, to write")
    parser.add_argument("--merged", action="store_true", help="merge it into its base, as a model of its own")
    parser.add_argument("--base", help="where that base lies, if it was a folder")
    options = parser.parse_args(arguments)
    settings = Settings.from_env()
    try:
        version = AdapterStore(settings.home, settings.shipped).get(options.version)
        if options.merged:
            base = options.base or version.manifest["base"]["id"]
            merge(version, ModelStore(settings.home / "models", settings.offline).resolve(base), options.target)
        else:
            pack(version, options.target)
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    print(options.target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
