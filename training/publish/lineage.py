"""Facts for the manifest of a version: its base, rows, configuration, measurements, libraries and machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from models.resolve import Model
from settings import RELEASE
from store import files
from training.config import TrainConfig
from training.data.files.formats import parts, title
from training.data.prepare import Prepared
from training.estimate.machine import processor

LEFT_OUT = ("data", "held_out_data", "model", "tab_model", "prompt", "columns", "corrections", "hub")
"""Fields of the configuration that other facts of the manifest name, without paths of this machine."""
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "accelerate", "bitsandbytes", "datasets", "numpy")


def base_facts(named: str, model: Model, quantize: str) -> dict[str, Any]:
    """Return the facts of a base: id, revision, digests and quantization; `named` is its name in the configuration.

    The id of a folder is its last part: a version travels, and paths of this machine must not go with it.
    """
    return {
        "id": Path(named).name if model.source == "folder" else named.partition("@")[0],
        "revision": model.revision,
        "source": model.source,
        "identity": model.identity,
        "shape_id": model.shape_id,
        "quantize": quantize,
    }


def data_facts(config: TrainConfig, data: Prepared) -> dict[str, Any]:
    """Return the facts of the rows: names and hashes of their files, counts, and the fingerprint of prepared data."""
    other, report = Path(config.held_out_data) if config.held_out_data else None, data.report
    labels = Counter(row["target"] for row in data.held_out.kept) if data.labels else {}
    return {
        "file": report.file,
        "sha256": data.sha256,
        "hub": dict(config.hub),
        "held_out_file": title(other) if other else "",
        "held_out_sha256": _sha256(other) if other else "",
        "fingerprint": data.fingerprint,
        "rows": report.rows,
        "usable": report.usable,
        "trained": data.replayed if data.corrections.rows else len(data.train),
        "corrections": len(data.corrections.rows),
        "truncated": data.truncated,
        "held_out": len(data.held_out.examples),
        "held_out_labels": dict(sorted(labels.items())),
    }


def _sha256(path: Path) -> str:
    """Return the hash of a file, or for a split of several files the hash of their hashes."""
    found = [files.sha256(part) for part in parts(path)]
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest()


def run_facts(config: TrainConfig, measured: Mapping[str, float], started: float) -> dict[str, Any]:
    """Return the configuration, the measurements, the libraries and the machine; `started` is in Unix seconds."""
    machine: dict[str, Any] = {
        "cpu": processor()[0],
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
    }
    if torch.cuda.is_available():
        device = torch.cuda.get_device_properties(0)
        machine |= {"gpu": device.name, "gpu_memory_bytes": device.total_memory}
    return {
        **library_facts(),
        "config": {key: value for key, value in vars(config).items() if key not in LEFT_OUT},
        "measured": {**measured, "total_seconds": round(time.time() - started, 1)},
        "machine": machine,
    }


def library_facts() -> dict[str, Any]:
    """Return the time, and the versions of Graft, Python and the libraries that the weights depend on."""
    return {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "libraries": {"graft": RELEASE, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in LIBRARIES},
    }
