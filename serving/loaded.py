"""A base model in memory with its classifier and generator. Imports torch; the pool's loading threads import it."""

from __future__ import annotations

from models.resolve import Model
from serving.base.base_model import BaseModel
from serving.classifier import Classifier
from serving.generation.generator import Generator


class Loaded:
    """A base model, its classifier and its generator."""

    def __init__(self, model: Model, quantize: str, precision: str = "auto", beside: bool = False) -> None:
        """Arguments and errors as for `BaseModel`."""
        self.base = BaseModel(model, quantize, precision, beside)
        self.classifier = Classifier(self.base)
        self.generator = Generator(self.base)
