"""A base model in memory, and its two ways of answering. The pool's loading threads import this module, and torch."""

from __future__ import annotations

import torch

from models import memory_use
from models.loading import compute_dtype, resolve_quantization
from models.resolve import Model
from serving.base.base_model import BaseModel
from serving.classifier import Classifier
from serving.generation.generator import Generator


class Loaded:
    """A base model, its classifier and its generator."""

    def __init__(self, model: Model, quantize: str, precision: str = "auto", beside: bool = False) -> None:
        """Load the weights, which takes seconds; `beside`: only if they fit beside others. Raises `ModelError`."""
        if beside:
            accelerator = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
            memory_use.require(model, resolve_quantization(quantize), compute_dtype(precision).itemsize, accelerator)
        self.base = BaseModel(model, quantize, precision)
        self.classifier = Classifier(self.base)
        self.generator = Generator(self.base)
