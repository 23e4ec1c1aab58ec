"""A base with everything that can be asked of it; what the pool's loading thread builds."""

from __future__ import annotations

from serving.labels import Labels
from serving.resident import Resident
from serving.text import Generator
from store.models import Model


class Loaded:
    """A resident base, and its two ways of answering."""

    def __init__(self, model: Model, quantize: str) -> None:
        """Loads the weights; takes seconds. Raises `ModelError`."""
        self.resident = Resident(model, quantize)
        self.labels = Labels(self.resident)
        self.text = Generator(self.resident)
