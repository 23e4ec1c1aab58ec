"""Loads another base than that of a run, and evaluates the baseline on it.

Tokens differ from base to base, so the loss of a whole answer is divided by the number of the new version's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoConfig, PreTrainedModel

from errors import ModelError
from models.loading import load_model, require_memory, training_dtype
from models.resolve import Model, ModelStore, Origins, fits
from models.tokenizer import load_tokenizer, window
from store.adapters import Version
from tasks import resident_class, task_for
from training.loop import lora
from training.publish.card import Baseline, baseline_or_reason
from training.publish.evaluate import Evaluation, Predictions


def measure_elsewhere(
    models: ModelStore,
    origins: Origins,
    own: str,
    quantize: str,
    evaluation: Evaluation,
    live: Version | None,
    new: Predictions,
) -> Baseline:
    """Evaluate the live version on its base, or without one the tab's base `own`; returns a reason where that fails.

    `new` are the predictions of the run's version, on the run's base.
    """
    name = live.ref if live else Path(own.partition("@")[0]).name

    def evaluate() -> Baseline:
        model = _resolve(models, origins, own, live)
        if live and not fits(live, model):
            raise ModelError(f"The base of {name} has other weights.", "")
        task, tokenizer = task_for(evaluation.config.task, model.config), load_tokenizer(model)
        shape = AutoConfig.from_pretrained(model.path, trust_remote_code=False, local_files_only=True)
        longest = min(evaluation.config.max_length, window(shape, tokenizer))
        rows = evaluation.encoded_for(live, task.name, tokenizer, longest)
        if len(rows.held_out.kept) < len(evaluation.held_out.kept):
            return Baseline(name, why="rows")

        def load(auto_class: str, labels: Sequence[str] = ()) -> PreTrainedModel:
            return load_base(model, auto_class, quantize, training_dtype(evaluation.config.precision), labels)[0]

        if live:
            live.check_files()
            net = load(task.auto_class, live.labels)
            lora.verify(net, live.path, live.ref)
            predictions = rows.predict(PeftModel.from_pretrained(net, live.path), live.labels)
        else:
            body = resident_class(model.config)
            predictions, _ = rows.predict_without_adapter(model, lambda head: load(task.auto_class if head else body))
        return Baseline(name).with_predictions(replace(predictions, tokens=new.tokens), "elsewhere")

    return baseline_or_reason(name, "elsewhere", evaluate)


def load_base(
    model: Model, auto_class: str, quantize: str, dtype: torch.dtype, labels: Sequence[str] = ()
) -> tuple[PreTrainedModel, set[str]]:
    """Load a base, for `labels` with a new head, if there is memory for it; returns and raises as `load_model`."""
    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
    require_memory(model, quantize, dtype.itemsize, free)
    return load_model(model, auto_class, quantize, dtype, **lora.head_options(labels))


def _resolve(models: ModelStore, origins: Origins, own: str, live: Version | None) -> Model:
    key = origins.id_of(live, own) if live else own
    return (models.resolve if key == own or Path(key).is_absolute() else models.resolve_hub_id)(key)
