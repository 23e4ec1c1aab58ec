"""The work of a run's process: train, compare, publish. Reads config.json, writes events.jsonl and result.json.

The process shares only the run's folder with its parent, and outlives the page and the server that started it. A
version is published only after it was trained, compared with what answered before, written and verified.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig

from errors import ConfigError, GraftError, RunError
from models import fingerprint
from models.loading import require_quantization, resolve_quantization, training_dtype
from models.resolve import ModelStore, Origins
from models.tokenizer import check_tokens, load_tokenizer, window
from process_setup import return_large_blocks
from settings import Settings
from store import files
from store.adapters import AdapterStore, Version
from store.corrections import Corrections
from tasks import task_for
from training.config import TrainConfig
from training.data.prepare import Prepared, prepare
from training.data.tokens import encode_rows
from training.estimate import advice, machine
from training.estimate.estimate import Estimate, plan_run
from training.estimate.lengths import from_rows
from training.events import CONFIG, RESULT, Events
from training.loop import checkpoints, lora
from training.loop.tracking import Tracking
from training.loop.trainer import Paused, Trainer, peak_memory
from training.loop.validation import choose_rows, validate
from training.publish import card, lineage, model_card
from training.publish.evaluate import Evaluation
from training.publish.other_base import measure_elsewhere
from training.runs.run_process import age

OnEstimate = Callable[[Estimate], object]
"""Callback that receives the estimate of a run before the run takes its memory."""


def main(folder: Path, on_estimate: OnEstimate = bool) -> int:
    """Carry out the run in `folder`; returns 0 for a published version or a pause. A failure becomes its result."""
    events = Events(folder)
    try:
        config = TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
        session = Session(config, folder, events, on_estimate)
        with Tracking(config, folder) as tracking:
            events.listen(tracking.log_event)
            result = session.run()
            tracking.log_card(result["card"])
    except Paused as paused:
        files.write_json(folder / RESULT, {"state": "paused", "step": paused.step, "steps": paused.steps})
        return 0
    except BaseException as error:
        traceback.print_exc()
        files.write_json(folder / RESULT, {"state": "failed", **_explain(error).to_dict()})
        return 1
    files.write_json(folder / RESULT, {"state": "done", **result})
    checkpoints.remove(folder)
    return 0


class Session:
    """The phases of one run."""

    def __init__(self, config: TrainConfig, folder: Path, events: Events, on_estimate: OnEstimate) -> None:
        """Resolve base and task; raises `GraftError` before any weight is read."""
        self.config, self.folder, self.events, self._on_estimate = config, folder, events, on_estimate
        self.settings = settings = Settings.from_env()
        self.store = AdapterStore(settings.home, settings.shipped)
        events.phase("data")
        self.quantize = resolve_quantization(config.quantize)
        require_quantization(self.quantize)
        self.models = ModelStore(settings.home / "models", settings.offline)
        self.origins = Origins(settings.home, settings.models.values())
        self.model = self.models.resolve(config.model)
        self.task = task_for(config.task, self.model.config)
        self.dtype, self.tokenizer = training_dtype(config.precision), load_tokenizer(self.model)
        if config.packing and self.task.name != "causal-lm":
            why = f"It puts rows one after the other; {config.model} is an encoder-decoder and reads each alone."
            raise ConfigError("packing", [why], "Switch it off, or choose a decoder-only base.")
        self.origins.note(self.model)

    def run(self) -> dict[str, Any]:
        """Train, compare and publish; returns the content of result.json."""
        started = time.time()
        transformers.set_seed(self.config.seed)
        limit = window(AutoConfig.from_pretrained(self.model.path, trust_remote_code=False), self.tokenizer)
        self.config = replace(self.config, max_length=min(self.config.max_length, limit))
        start = self.store.get(self.config.start_from) if self.config.start_from else None
        known = start.labels if start else ()
        data = prepare(self.config, self.task, self.tokenizer, self.settings, self.events, known)
        estimate = self._estimate(data)
        self.events.phase("model", model=self.config.model, quantize=self.quantize)
        rows, validation_rows = choose_rows(data.train, data.validation, self.config)
        longest = int(rows.lengths.max())
        net = lora.build(self.config, self.task, self.model, data.labels, self.quantize, self.dtype, longest, start)
        vocabulary = int(net.get_base_model().get_input_embeddings().weight.shape[0])
        check_tokens(data.largest_token, vocabulary, self.model)
        self.events.phase("train", rows=len(rows), held_out=len(data.held_out.examples))
        started_s, pad = age(), int(self.tokenizer.pad_token_id)
        validation = partial(validate, rows=validation_rows, pad=pad, dtype=self.dtype)
        measured = Trainer(
            net, rows, pad, self.config, self.folder, self.events, data.fingerprint, validation, self.dtype
        ).run()
        if lora.changes_nothing(net):
            raise RunError(
                "The training changed nothing; nothing was published.",
                "Every LoRA matrix is still zero.",
                "Train for more steps, or with a higher learning rate.",
            )
        self.events.phase("evaluate")
        trained_s = age()
        comparison = self._compare(net, data)
        seconds = {"start": started_s, "train": measured["seconds"], "evaluate": age() - trained_s}
        self.events.phase("publish")
        version = self._publish(net, comparison, self._facts(net, data, measured, started))
        if data.corrections.ids:
            Corrections(self.settings.home).mark_taught(self.config.plugin, data.corrections.ids, version.ref)
        return {
            "version": version.ref,
            "promoted": self._promote(version, comparison),
            "card": comparison,
            "estimate": estimate.to_dict() if estimate else None,
            "measured": {"seconds": seconds, "tokens": measured["tokens"], "peak": peak_memory()},
        }

    def _estimate(self, data: Prepared) -> Estimate | None:
        """Estimate the run by its own rows, and choose gradient checkpointing; None for a base of unknown shape.

        Raises `RunError` where the run does not fit.
        """
        lengths, held_out = from_rows(data.train.lengths, data.train.learned), len(data.held_out.examples)
        free = machine.measure(self.settings.home, [self.folder])
        plan = plan_run(self.config, self.settings.home, lengths, len(data.labels), free)
        found = advice.check(replace(plan, held_out=held_out)) if plan else None
        saving = found.checkpointing if found else self.config.gradient_checkpointing == "on"
        if saving:
            return_large_blocks()
        self.config = replace(self.config, gradient_checkpointing="on" if saving else "off")
        if found:
            self.events.emit("estimate", **found.to_dict())
            self._on_estimate(found)
        return found

    def _compare(self, net: PeftModel, data: Prepared) -> dict[str, Any]:
        """Compare base, live version and new version on the held-out rows; returns the card."""
        evaluation = Evaluation(data.held_out, self.tokenizer, data.labels, self.config)
        live, default_base = self.store.live(self.config.plugin), self.config.tab_model or self.config.model
        corrections, elsewhere = None, None
        if data.corrections.rows:
            encoded = encode_rows(data.corrections.rows, self.tokenizer, self.config, data.labels, self.task.name)
            corrections = replace(evaluation, held_out=encoded) if encoded.kept else None
        if live is not None or default_base != self.config.model:  # the tab may answer from another base now
            elsewhere = partial(measure_elsewhere, self.models, self.origins, default_base, self.quantize)
        rule = self.settings.gate
        return card.compare(net, evaluation, live, self.model, self.task, rule, corrections, elsewhere, data.alone)

    def _publish(self, net: PeftModel, comparison: dict[str, Any], facts: dict[str, Any]) -> Version:
        """Write the PEFT folder, the card and the README, verify the adapter as a server does, and publish them."""
        with self.store.staging() as staging:
            adapter = net.peft_config["default"]
            adapter.base_model_name_or_path, adapter.inference_mode = facts["base"]["id"], True
            # No embeddings are trained, so none are saved; "auto" would ask the Hub about the base.
            net.save_pretrained(staging, selected_adapters=["default"], save_embedding_layers=False)
            files.write_json(staging / "card.json", comparison)
            lora.verify(net, staging, self.config.name)
            text = model_card.readme(self.config.name, facts, comparison)
            (staging / "README.md").write_text(text, encoding="utf-8")
            return self.store.publish(staging, self.config.name, facts)

    def _facts(self, net: PeftModel, data: Prepared, measured: Mapping[str, float], started: float) -> dict[str, Any]:
        """Return the facts of the manifest; `started` is in Unix seconds."""
        return {
            "plugin": self.config.plugin,
            "task": self.task.name,
            "labels": data.labels,
            "prompt": self.config.prompt,
            "base": lineage.base_facts(self.config.model, self.model, self.quantize),
            "fingerprint": fingerprint.measure(net, self.tokenizer, self.quantize, self.dtype),
            "data": lineage.data_facts(self.config, data),
            **lineage.run_facts(self.config, measured, started),
            "run": self.folder.name,
        }

    def _promote(self, version: Version, comparison: dict[str, Any]) -> bool:
        """Make the new version live if the configuration asks for it and the gate passes; returns whether it did."""
        passed, why = comparison["gate"]["pass"], comparison["gate"]["why"]
        if promoted := bool(self.config.promote and passed):
            self.store.promote(self.config.plugin, version.ref, why, f"gate of run {self.folder.name}")
        return promoted


def _explain(error: BaseException) -> GraftError:
    """Convert a failure to an error that a user can understand."""
    if isinstance(error, GraftError):
        return error
    first = str(error).split("\n")[0][:200]
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error):
        next = "Use a smaller batch or a shorter longest length, or quantize the base to 4bit."
        return GraftError("The training ran out of memory.", first, next)
    if (isinstance(error, OSError) and error.errno == 28) or "os error 28" in str(error):  # as safetensors says it
        return GraftError("The disk is full.", "The version could not be written.", "Free some space.")
    return GraftError("The training failed.", f"{type(error).__name__}: {first}", "The last lines of its log say more.")
