"""Tiny training runs for tests: the real worker, in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from store.adapters import AdapterStore, Version
from tasks import Columns, TabSpec
from tests.helpers import tiny
from tests.helpers.exact import ON_GPU
from training.config import TrainConfig
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import Report
from training.events import CONFIG, RESULT
from training.runs.runs import Runs
from training.worker import main


def spec_of(family: str, base: Path) -> TabSpec:
    """Return the facts of a tab for a base of that family."""
    if family in tiny.ENCODERS:
        return TabSpec("classification", str(base), "text-classification", Columns(text="text", target="label"))
    return TabSpec("summarization", str(base), "causal-lm", Columns(text="text", target="summary"), "Sum up: {text}")


def write_rows(spec: TabSpec, path: Path) -> Path:
    """Write a small file of rows for the tab."""
    if spec.task == "text-classification":
        lines = ["text,label", *(f"{'late parcel' if i % 2 else 'great work'} number {i},{i % 2}" for i in range(24))]
        path = path.with_suffix(".csv")
    else:
        rows = [{"text": f"notes of meeting {i}, nothing new", "summary": f"meeting {i}: nothing"} for i in range(12)]
        lines, path = [json.dumps(row) for row in rows], path.with_suffix(".jsonl")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def config_of(spec: TabSpec, home: Path, name: str, **chosen: object) -> TrainConfig:
    """Configure two quick steps with a learning rate that changes answers visibly, on a base that is not quantized.

    On a GPU in float32, because `auto` means 16 bits in a process of its own and 32 in this one (`exact`).
    """
    options = {"max_steps": 2, "batch_size": 4, "max_length": 64, "learning_rate": 5e-2, "held_out": 0.2,
               "quantize": "none", **({"precision": "float32"} if ON_GPU else {}), **chosen}  # fmt: skip
    return TrainConfig.for_tab(spec, write_rows(spec, home / name), name, **options)


def bare_config(task: str, data: str = "d", **chosen: Any) -> TrainConfig:
    """A configuration for functions that look at no other part of a run than its rows."""
    columns = {"text": "text", "target": "target"}
    return TrainConfig(name="a", plugin="p", model="m", task=task, data=data, columns=columns, **chosen)


def run_folder(config: TrainConfig, home: Path, id: str = "") -> Path:
    """Return the folder of a run, made with its configuration."""
    folder = home / "runs" / (id or config.name)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(config.to_json())
    return folder


def run_worker(config: TrainConfig, home: Path, id: str = "") -> dict:
    """Run the worker as its own process would run it; returns its result."""
    folder = run_folder(config, home, id)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("GRAFT_HOME", str(home))
        main(folder)
    return json.loads((folder / RESULT).read_text())


def train(spec: TabSpec, home: Path, name: str = "tiny", **chosen: object) -> Version:
    """Train and return what was published."""
    result = run_worker(config_of(spec, home, name, **chosen), home)
    assert result["state"] == "done", result
    return AdapterStore(home).get(result["version"])


def inspect(
    runs: Runs, path: Path, spec: TabSpec, mapping: Mapping[str, str] | None = None, max_length: int = 512
) -> Report:
    """Return the complete report on a file of rows."""
    *_, report = runs.look(Inspection(path, spec, dict(mapping or {}), max_length))
    return report
