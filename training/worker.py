"""One run, in the child process that `training/child.py` begins: reads config.json in its folder and writes the rest.

It shares nothing with its parent but that folder: events.jsonl while it goes on, result.json once, last. It outlives
the page, and the server that started it. It publishes a version only after the version was trained, compared with
what answered before, written down and verified.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig

from errors import GraftError, RunError
from settings import Settings
from store import files
from store.adapters import AdapterStore, Version
from store.loading import load_tokenizer, resolve_quantization, training_dtype, window
from store.models import ModelStore
from tasks import task_for
from training import card, checkpoints, recipe
from training.config import TrainConfig
from training.data import Row, read_table, split
from training.encoding import Encoded, encode_rows
from training.evaluation import Trial
from training.events import CONFIG, RESULT, Events
from training.loop import Loop, Paused
from training.rows import asked
from training.validation import InMemory, Validation, choose_rows

ELSEWHERE = ("data", "held_out_data", "model", "prompt", "columns")
"""Fields of the configuration that the manifest says in another place, without paths of this machine."""
LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes", "datasets")


def main(folder: Path) -> int:
    """Run to the end; 0 when a version was published. Every failure becomes a result that says why."""
    events = Events(folder)
    try:
        config = TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
        result = Session(config, folder, events).run()
    except Paused as paused:
        files.write_json(folder / RESULT, {"state": "paused", "step": paused.step, "steps": paused.steps})
        return 0
    except BaseException as error:
        traceback.print_exc()
        files.write_json(folder / RESULT, {"state": "failed", **_explain(error)})
        return 1
    files.write_json(folder / RESULT, {"state": "done", **result})
    checkpoints.remove(folder)
    return 0


class Session:
    """One run, phase by phase."""

    def __init__(self, config: TrainConfig, folder: Path, events: Events) -> None:
        """Resolve what the configuration names; raises `GraftError` before any weight is read."""
        self.config, self.folder, self.events = config, folder, events
        settings = Settings.from_env()
        self.store = AdapterStore(settings.home, settings.shipped)
        events.phase("data")
        self.model = ModelStore(settings.home / "models", settings.offline).resolve(config.model)
        self.task = task_for(config.task, self.model.config)
        table = read_table(Path(config.data), self.task.answers, config.wanted, config.mapping)
        self.report = table.report
        self.labels = sorted(self.report.labels)
        self.rows, self.held_out = self._split(table.rows)
        self.quantize = resolve_quantization(config.quantize)
        self.data = files.sha256(Path(config.data))

    def run(self) -> dict[str, Any]:
        """Train, compare, publish; returns what result.json says."""
        started = time.time()
        transformers.set_seed(self.config.seed)
        tokenizer = load_tokenizer(self.model)
        longest = window(AutoConfig.from_pretrained(self.model.path, trust_remote_code=False), tokenizer)
        self.config = replace(self.config, max_length=min(self.config.max_length, longest))
        train, held_out = self._encode(self.rows, tokenizer), self._encode(self.held_out, tokenizer)
        if not train.examples or not held_out.examples:
            raise RunError("No row is short enough.", "Every answer lies beyond the longest length.",
                           "Raise the longest length, or use shorter texts.")  # fmt: skip
        self.events.phase("model", model=self.config.model, quantize=self.quantize)
        rows, looked_at = choose_rows(InMemory(train.examples), InMemory(held_out.examples), self.config)
        dtype = training_dtype(self.config.precision)
        net = recipe.build(
            self.config, self.task, self.model, self.labels, self.quantize, dtype, int(rows.lengths.max())
        )
        self.events.phase("train", rows=len(rows), held_out=len(held_out.examples))
        pad = int(tokenizer.pad_token_id)
        look = Validation(looked_at, pad, dtype)
        measured = Loop(net, rows, pad, self.config, self.folder, self.events, self.data, look, dtype).run()
        if recipe.changes_nothing(net):
            raise RunError("The training changed nothing; nothing was published.", "Every LoRA matrix is still zero.",
                           "Train for more steps, or with a higher learning rate.")  # fmt: skip
        self.events.phase("evaluate")
        comparison = self._compare(net, tokenizer, held_out)
        self.events.phase("publish")
        version = self._publish(net, comparison, train, measured, started)
        return {"version": version.ref, "promoted": self._promote(version, comparison), "card": comparison}

    def _split(self, rows: list[Row]) -> tuple[list[Row], list[Row]]:
        """Rows to train on and rows held out; a row held out by a file of the user's is never trained on."""
        if not self.config.held_out_data:
            return split(rows, self.config.held_out, self.config.seed, by_label=self.task.answers == "label")
        table = read_table(Path(self.config.held_out_data), self.task.answers, self.config.wanted, self.config.mapping)
        held = {asked(row) for row in table.rows}
        known = [row for row in table.rows if not self.labels or row["target"] in self.labels]
        return [row for row in rows if asked(row) not in held], known

    def _encode(self, rows: list[Row], tokenizer: Any) -> Encoded:  # noqa: ANN401
        return encode_rows(rows, tokenizer, self.config, self.labels, self.task.name)

    def _compare(self, net: Any, tokenizer: Any, held_out: Encoded) -> dict[str, Any]:  # noqa: ANN401
        """Base, live and new over the held-out rows."""
        trial = Trial(held_out, tokenizer, self.labels, self.config)
        return card.compare(net, trial, self.store.live(self.config.plugin), self.model, self.task, self.quantize)

    def _publish(
        self,
        net: PeftModel,
        comparison: dict[str, Any],
        train: Encoded,
        measured: dict[str, float],
        started: float,
    ) -> Version:
        """Write the PEFT folder, the card and the README, verify them as a server will, and publish them at once."""
        with self.store.staging() as staging:
            adapter = net.peft_config["default"]
            adapter.base_model_name_or_path = self.config.model
            adapter.inference_mode = True
            net.save_pretrained(staging, safe_serialization=True)
            files.write_json(staging / "card.json", comparison)
            recipe.verify(net, staging, self.config.name)
            facts = self._facts(train, measured, started)
            (staging / "README.md").write_text(card.readme(self.config, facts, comparison), encoding="utf-8")
            return self.store.publish(staging, self.config.name, facts)

    def _facts(self, train: Encoded, measured: dict[str, float], started: float) -> dict[str, Any]:
        """What the manifest says beside the files: where this version comes from, all of it measured."""
        return {
            "plugin": self.config.plugin,
            "task": self.task.name,
            "labels": self.labels,
            "prompt": self.config.prompt,
            "base": {
                "id": self._base_name(),
                "revision": self.model.revision,
                "source": self.model.source,
                "identity": self.model.identity,
                "shape_id": self.model.shape_id,
                "quantize": self.quantize,
            },
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "data": {
                "file": self.report.file,
                "held_out_file": Path(self.config.held_out_data).name,
                "sha256": files.sha256(Path(self.config.data)),
                "rows": self.report.rows,
                "usable": self.report.usable,
                "trained": len(train.examples),
                "truncated": train.truncated,
            },
            "config": {k: v for k, v in vars(self.config).items() if k not in ELSEWHERE},
            "measured": {**measured, "total_seconds": round(time.time() - started, 1)},
            "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        }

    def _base_name(self) -> str:
        """The base's id, or a folder's own name: a version travels, and paths of this machine must not go with it."""
        return Path(self.config.model).name if self.model.source == "folder" else self.config.model.partition("@")[0]

    def _promote(self, version: Version, comparison: dict[str, Any]) -> bool:
        """Let the tab answer with the new version if the run was asked to and the card's gate allows it."""
        promoted = bool(self.config.promote and comparison["gate"]["pass"])
        if promoted:
            self.store.promote(self.config.plugin, version.ref, comparison["gate"]["why"])
        return promoted


def _explain(error: BaseException) -> dict[str, str]:
    """What a result says of a failure."""
    if isinstance(error, GraftError):
        return {"what": error.what, "why": error.why, "next": error.next}
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error):
        return {"what": "The training ran out of memory.", "why": str(error).split("\n")[0][:200],
                "next": "Use a smaller batch or a shorter longest length, or quantize the base to 4bit."}  # fmt: skip
    if isinstance(error, OSError) and error.errno == 28:
        return {"what": "The disk is full.", "why": "The version could not be written.", "next": "Free some space."}
    return {"what": "The training failed.", "why": f"{type(error).__name__}: {str(error).split(chr(10))[0][:200]}",
            "next": "The last lines of its log say more."}  # fmt: skip
