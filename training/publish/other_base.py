"""Measures what a tab answers with now, where that is on another base than the run's, in a pass of its own.

Tokens differ from base to base, so losses are compared as nats of a whole answer, divided by the new version's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig

from errors import ModelError
from models.loading import load_model, require_memory, training_dtype
from models.resolve import Model, ModelStore, Origins, fits
from models.tokenizer import load_tokenizer, window
from store.adapters import Version
from tasks import resident_class, task_for
from training.loop import lora
from training.publish.card import Baseline, baseline_or_reason
from training.publish.evaluate import Evaluation, Predictions


@dataclass(frozen=True)
class OtherBase:
    """The stores that other bases are found in, and how bases are held."""

    models: ModelStore
    origins: Origins
    own: str
    """The tab's own base."""
    quantize: str

    def measure(self, evaluation: Evaluation, live: Version | None, new: Predictions) -> Baseline:
        """Return the live version as a baseline, or without one the tab's own base; or the reason why it is none."""
        name = live.ref if live else Path(self.own.partition("@")[0]).name
        return baseline_or_reason(name, "elsewhere", lambda: self._measure(evaluation, live, new, name))

    def _measure(self, evaluation: Evaluation, live: Version | None, new: Predictions, name: str) -> Baseline:
        model, precision = self._resolve(live), evaluation.config.precision
        if live and not fits(live, model):
            raise ModelError(f"The base of {name} has other weights.", "")
        accelerator = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
        require_memory(model, self.quantize, training_dtype(precision).itemsize, accelerator)
        task, tokenizer = task_for(evaluation.config.task, model.config), load_tokenizer(model)
        shape = AutoConfig.from_pretrained(model.path, trust_remote_code=False, local_files_only=True)
        longest = min(evaluation.config.max_length, window(shape, tokenizer))
        asked = evaluation.encoded_for(live, task.name, tokenizer, max_length=longest)
        if len(asked.held_out.kept) < len(evaluation.held_out.kept):
            return Baseline(name, why="rows")
        if live:
            live.check_files()
            net = self._load(model, task.auto_class, precision, live.labels)
            lora.verify(net, live.path, live.ref)
            predictions = asked.predict(PeftModel.from_pretrained(net, live.path), live.labels)
        else:
            body = resident_class(model.config)
            predictions, _ = asked.predict_without_adapter(
                model, lambda head: self._load(model, task.auto_class if head else body, precision)
            )
        return Baseline(name).predicted(replace(predictions, tokens=new.tokens), "elsewhere")

    def _resolve(self, live: Version | None) -> Model:
        if live is None:
            return self.models.resolve(self.own)
        key = self.origins.id_of(live, self.own)
        own = key == self.own or Path(key).is_absolute()
        return (self.models.resolve if own else self.models.resolve_hub_id)(key)

    def _load(self, model: Model, auto_class: str, precision: str, labels: Sequence[str] = ()) -> Any:  # noqa: ANN401
        options = {"num_labels": len(labels), "ignore_mismatched_sizes": True} if labels else {}
        return load_model(model, auto_class, self.quantize, training_dtype(precision), **options)[0]
