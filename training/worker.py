"""Runs one training in its own process: reads config.json in its folder, writes events.jsonl and at last result.json.

It shares nothing with its parent but that folder, and outlives the page and the server that started it. A version is
published only after it was trained, compared with what answered before, written and verified.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import replace
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
from training.loop.validation import Validation, choose_rows
from training.publish import card, gate, lineage, model_card
from training.publish.evaluate import Evaluation
from training.publish.other_base import OtherBase
from training.runs.run_process import age

Foreseen = Callable[[Estimate], object]
"""Is called with the estimate of a run, before its memory is taken."""


def main(folder: Path, foreseen: Foreseen = bool) -> int:
    """Run to the end; returns 0 for a published version or a pause. Every failure becomes a result with its reason."""
    events = Events(folder)
    try:
        config = TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8"))
        session = Session(config, folder, events, foreseen)
        with Tracking(config, folder) as tracking:
            events.listen(tracking.log_event)
            result = session.run()
            tracking.log_card(result["card"])
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

    def __init__(self, config: TrainConfig, folder: Path, events: Events, foreseen: Foreseen) -> None:
        """Resolve what the configuration names; raises `GraftError` before any weight is read."""
        self.config, self.folder, self.events, self._foreseen = config, folder, events, foreseen
        self.settings = settings = Settings.from_env()
        self.store = AdapterStore(settings.home, settings.shipped)
        events.phase("data")
        self.quantize = resolve_quantization(config.quantize)
        require_quantization(self.quantize)
        self.models = ModelStore(settings.home / "models", settings.offline)
        self.origins = Origins(settings.home, settings.models.values())
        self.model = self.models.resolve(config.model)
        self.task = task_for(config.task, self.model.config)
        if config.packing and self.task.name != "causal-lm":
            why = f"It puts rows one after the other; {config.model} is an encoder-decoder and reads each alone."
            raise ConfigError("packing", [why], "Switch it off, or choose a decoder-only base.")
        self.origins.note(self.model)

    def run(self) -> dict[str, Any]:
        """Train, compare and publish; returns the content of result.json."""
        started = time.time()
        transformers.set_seed(self.config.seed)
        tokenizer = load_tokenizer(self.model)
        longest = window(AutoConfig.from_pretrained(self.model.path, trust_remote_code=False), tokenizer)
        self.config = replace(self.config, max_length=min(self.config.max_length, longest))
        start = self.store.get(self.config.start_from) if self.config.start_from else None
        data = prepare(self.config, self.task, tokenizer, self.settings, self.events, start.labels if start else ())
        expected = self._foresee(data)
        self.events.phase("model", model=self.config.model, quantize=self.quantize)
        rows, looked_at = choose_rows(data.train, data.validation, self.config)
        dtype = training_dtype(self.config.precision)
        longest = int(rows.lengths.max())
        net = lora.build(self.config, self.task, self.model, data.labels, self.quantize, dtype, longest, start)
        vocabulary = int(net.get_base_model().get_input_embeddings().weight.shape[0])
        check_tokens(data.largest_token, vocabulary, self.model)
        self.events.phase("train", rows=len(rows), held_out=len(data.held_out.examples))
        begun, pad = age(), int(tokenizer.pad_token_id)
        validation = Validation(looked_at, pad, dtype)
        measured = Trainer(
            net, rows, pad, self.config, self.folder, self.events, data.fingerprint, validation, dtype
        ).run()
        if lora.changes_nothing(net):
            raise RunError(
                "The training changed nothing; nothing was published.",
                "Every LoRA matrix is still zero.",
                "Train for more steps, or with a higher learning rate.",
            )
        self.events.phase("evaluate")
        trained = age()
        comparison = self._compare(net, tokenizer, data)
        seconds = {"start": begun, "train": measured["seconds"], "evaluate": age() - trained}
        self.events.phase("publish")
        facts = {
            **self._facts(net, tokenizer, data, dtype),
            "data": lineage.data_facts(self.config, data),
            **lineage.run_facts(self.config, measured, started),
            "run": self.folder.name,
        }
        version = self._publish(net, comparison, facts)
        if data.corrections.ids:
            Corrections(self.settings.home).mark_taught(self.config.plugin, data.corrections.ids, version.ref)
        return {
            "version": version.ref,
            "promoted": self._promote(version, comparison),
            "card": comparison,
            "estimate": expected.to_dict() if expected else None,
            "measured": {"seconds": seconds, "tokens": measured["tokens"], "peak": peak_memory()},
        }

    def _foresee(self, data: Prepared) -> Estimate | None:
        """Estimate the run by its own rows, and decide on gradient checkpointing; None for a base of unknown shape.

        Raises `RunError` where it cannot fit.
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
            self._foreseen(found)
        return found

    def _compare(self, net: Any, tokenizer: Any, data: Prepared) -> dict[str, Any]:  # noqa: ANN401
        """Compare base, live version and new version on the held-out rows; returns the card."""
        evaluation = Evaluation(data.held_out, tokenizer, data.labels, self.config)
        taught, live = None, self.store.live(self.config.plugin)
        if data.corrections.rows:
            encoded = encode_rows(data.corrections.rows, tokenizer, self.config, data.labels, self.task.name)
            taught = replace(evaluation, held_out=encoded) if encoded.kept else None
        own, elsewhere = self.config.tab_model or self.config.model, None
        if live is not None or own != self.config.model:  # what answers now may be on another base
            elsewhere = OtherBase(self.models, self.origins, own, self.quantize).measure
        found = card.compare(net, evaluation, live, self.model, self.task, self.settings.gate, taught, elsewhere)
        return gate.hold_back(found) if data.alone else found

    def _publish(self, net: PeftModel, comparison: dict[str, Any], facts: dict[str, Any]) -> Version:
        """Write the PEFT folder, the card and the README, verify them as a server will, and publish them together."""
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

    def _facts(self, net: PeftModel, tokenizer: Any, data: Prepared, dtype: torch.dtype) -> dict[str, Any]:  # noqa: ANN401
        """Return the manifest's facts about the version itself, and its fingerprint."""
        return {
            "plugin": self.config.plugin,
            "task": self.task.name,
            "labels": data.labels,
            "prompt": self.config.prompt,
            "base": lineage.base_facts(self.config.model, self.model, self.quantize),
            "fingerprint": fingerprint.measure(net, tokenizer, self.quantize, dtype),
        }

    def _promote(self, version: Version, comparison: dict[str, Any]) -> bool:
        """Make the new version live if the run was asked to and the card's gate allows it; returns whether."""
        decision = comparison["gate"]
        promoted = bool(self.config.promote and decision["pass"])
        if promoted:
            self.store.promote(self.config.plugin, version.ref, decision["why"], f"gate of run {self.folder.name}")
        return promoted


def _explain(error: BaseException) -> dict[str, str]:
    """Return what, why and next of a failure."""
    if isinstance(error, GraftError):
        return error.to_dict()
    first = str(error).split("\n")[0][:200]
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in str(error):
        next = "Use a smaller batch or a shorter longest length, or quantize the base to 4bit."
        return GraftError("The training ran out of memory.", first, next).to_dict()
    if (isinstance(error, OSError) and error.errno == 28) or "os error 28" in str(error):  # as safetensors says it
        return GraftError("The disk is full.", "The version could not be written.", "Free some space.").to_dict()
    why = f"{type(error).__name__}: {first}"
    return GraftError("The training failed.", why, "The last lines of its log say more.").to_dict()
