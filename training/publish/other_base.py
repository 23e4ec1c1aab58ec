"""What a tab answers with now, where that is on another base than a run's: asked the same rows in a pass of its own.

Tokens differ from base to base, so losses are compared as nats of a whole answer, divided by the new version's tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoConfig

from errors import GraftError, ModelError
from models.loading import load_model, require_memory, training_dtype
from models.resolve import Model, ModelStore, Origins, fits
from models.tokenizer import load_tokenizer, window
from store.adapters import Version
from tasks import Task, resident_class, task_for
from training.data.tokens import encode_rows
from training.loop import lora
from training.publish.card import Rival, own_labels
from training.publish.evaluate import Outcome, Trial

log = logging.getLogger("graft")


@dataclass(frozen=True)
class Elsewhere:
    """Where other bases are found, and how they are held."""

    models: ModelStore
    origins: Origins
    own: str
    """The tab's own base."""
    quantize: str

    def ask(self, trial: Trial, live: Version | None, new: Outcome) -> Rival:
        """What the live version, or where there is none the tab's own base, makes of the rows; or why it cannot."""
        name = live.ref if live else Path(self.own.partition("@")[0]).name
        try:
            return self._asked(trial, live, new, name)
        except GraftError as error:
            return Rival(name, why="elsewhere", detail=f"{error.what} {error.why}")
        except Exception as error:
            # Whatever is wrong with what answers now: the new version must not be lost by it.
            log.exception("%s could not be compared", name)
            return Rival(name, why="elsewhere", detail=type(error).__name__)

    def _asked(self, trial: Trial, live: Version | None, new: Outcome, name: str) -> Rival:
        model = self._resolve(live)
        if live and not fits(live, model):
            raise ModelError(f"The base of {name} has other weights.", "")
        accelerator = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
        require_memory(model, self.quantize, training_dtype(trial.config.precision).itemsize, accelerator)
        task = task_for(trial.config.task, model.config)
        asked = _as_asked(trial, model, live, task)
        if len(asked.held_out.kept) < len(trial.held_out.kept):
            return Rival(name, why="rows")
        outcome = self._version(asked, model, task, live) if live else self._base(asked, model, task)
        if not np.isfinite(outcome.loss).all():
            return Rival(name, why="elsewhere", detail="Its loss is not a number.")
        return Rival(name, outcome=replace(outcome, tokens=new.tokens))

    def _resolve(self, live: Version | None) -> Model:
        if live is None:
            return self.models.resolve(self.own)
        key = self.origins.id_of(live, self.own)
        own = key == self.own or Path(key).is_absolute()
        return (self.models.resolve if own else self.models.named)(key)

    def _version(self, trial: Trial, model: Model, task: Task, live: Version) -> Outcome:
        live.check_files()
        net = self._net(trial, model, task.auto_class, live.labels)
        lora.verify(net, live.path, live.ref)
        return trial.of(PeftModel.from_pretrained(net, live.path), live.labels)

    def _base(self, trial: Trial, model: Model, task: Task) -> Outcome:
        if not trial.labels:
            return trial.of(self._net(trial, model, task.auto_class))
        if own := own_labels(model, trial.labels):
            return trial.of(self._net(trial, model, task.auto_class), own)
        return trial.of_bare_encoder(self._net(trial, model, resident_class(model.config)).base_model)

    def _net(self, trial: Trial, model: Model, auto_class: str, labels: Sequence[str] = ()) -> Any:  # noqa: ANN401
        options = {"num_labels": len(labels), "ignore_mismatched_sizes": True} if labels else {}
        return load_model(model, auto_class, self.quantize, training_dtype(trial.config.precision), **options)[0]


def _as_asked(trial: Trial, model: Model, live: Version | None, task: Task) -> Trial:
    """The rows in another base's tokens, with the prompt that the version was trained with."""
    tokenizer, prompt = load_tokenizer(model), trial.config.prompt
    shape = AutoConfig.from_pretrained(model.path, trust_remote_code=False, local_files_only=True)
    longest = min(trial.config.max_length, window(shape, tokenizer))
    if live and not trial.labels:
        prompt = str(live.manifest.get("prompt") or "")
    config = replace(trial.config, prompt=prompt, max_length=longest, task=task.name)
    held_out = encode_rows(trial.held_out.kept, tokenizer, config, trial.labels, task.name)
    return Trial(held_out, tokenizer, trial.labels, config)
