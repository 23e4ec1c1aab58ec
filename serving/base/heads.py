"""Classifier heads: each belongs to a version, while the encoder below it is shared.

A head is the architecture's own `...ForSequenceClassification` with its encoder replaced by a module that replays what
the resident encoder has just computed. So every family's way of pooling, and of stacking layers above the pooling, is
transformers' code and not a copy of it.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig

from errors import AdapterError


class _Replay(nn.Module):
    """Returns the given outputs, whatever it is called with."""

    outputs: Any = None

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - an encoder's outputs
        return self.outputs


class Head:
    """One classifier head of `len(labels)` labels."""

    def __init__(self, config: PretrainedConfig, labels: list[str], tensors: Mapping[str, torch.Tensor]) -> None:
        """`tensors`: parameters of the classification model by name. Raises `AdapterError` if they do not fit."""
        config = copy.deepcopy(config)
        config.num_labels = len(labels)
        # With a type of its own it would be made under another default type of torch, which is the whole process's: a
        # base that is being loaded meanwhile would get, and leave behind, whichever was set last.
        config.dtype = None
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
        self._replay = _Replay()
        setattr(model, model.base_model_prefix, self._replay)
        own = {name: tensors[name] for name in model.state_dict() if name in tensors}
        _check(model, own)
        model.load_state_dict(own, assign=True)
        self._model, self._lock, self.labels = model.eval(), threading.Lock(), labels

    def __call__(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:  # noqa: ANN401
        """Logits of shape (rows, labels) from the encoder's outputs for `batch`."""
        with self._lock:
            self._replay.outputs = outputs
            logits: torch.Tensor = self._model(**batch).logits
            self._replay.outputs = None
        return logits


def _check(model: nn.Module, own: Mapping[str, torch.Tensor]) -> None:
    for name, expected in model.state_dict().items():
        found = own.get(name)
        if found is None or found.shape != expected.shape:
            shape = "missing" if found is None else f"of shape {tuple(found.shape)}"
            raise AdapterError(
                "A classifier head was refused.",
                f"{name} is {shape}; this base and these labels need {tuple(expected.shape)}.",
                "What answered before goes on answering.",
            )
