"""A base with everything that can be asked of it; what the pool's loading thread builds."""

from __future__ import annotations

import torch

from models.loading import compute_dtype, require_memory, resolve_quantization
from models.resolve import Model
from serving.base.base_model import Resident
from serving.classifier import Labels
from serving.generation.generator import Generator


class Loaded:
    """A resident base, and its two ways of answering."""

    def __init__(self, model: Model, quantize: str, precision: str = "auto", beside: bool = False) -> None:
        """Loads the weights; takes seconds. Raises `ModelError`, also where a base `beside` others does not fit."""
        if beside:
            accelerator = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
            require_memory(model, resolve_quantization(quantize), compute_dtype(precision).itemsize, accelerator)
        self.resident = Resident(model, quantize, precision)
        self.labels = Labels(self.resident)
        self.text = Generator(self.resident)
