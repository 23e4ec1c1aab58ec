"""Classification: a version's own head, a base's own head, or any labels by similarity of meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from errors import InputError, Text
from models.loading import mean_vectors, similarity_probabilities
from serving.base.base_model import Read, Resident
from serving.base.mixed_batch import runs
from serving.base.slots import Slot
from serving.batching import Batcher

KEPT = 256
"""Texts whose tokens are kept: each is counted and then answered, and labels are asked again and again."""


@dataclass(frozen=True, eq=False)
class _Question:
    read: Read
    slot: Slot | None


class Labels:
    """Everything about labels that can be asked of one resident base; calls may come from many threads."""

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        device = resident.device.type
        self._logits: Batcher[_Question, torch.Tensor] = Batcher(self._logit_pass, device=device)
        self._vectors: Batcher[Read, torch.Tensor] = Batcher(self._embed_pass, device=device)
        self._read = lru_cache(KEPT)(resident.read)

    @property
    def known(self) -> bool:
        """Whether the base answers with labels of its own, for it has a trained head."""
        return self._resident.own_head is not None

    def classify(self, text: str, slot: Slot | None) -> dict[str, float]:
        """Probability of each label of the slot's head, or of the base's own. Raises `InputError` if it has none."""
        head = slot.head if slot else self._resident.own_head
        if head is None:
            raise InputError(
                "The base has no labels of its own.",
                Text("{base} was not trained as a classifier.", base=self._resident.model.id),
                "Type your own labels, or choose a trained version.",
            )
        question = self._question(text, slot)
        key = None if self._resident.mixes else id(slot)
        logits = self._logits(key, question, _length(question.read))
        return dict(zip(head.labels, logits.softmax(-1).tolist(), strict=True))

    def _question(self, text: str, slot: Slot | None) -> _Question:
        return _Question(self._read(text), slot)

    def zero_shot(self, text: str, labels: Sequence[str]) -> dict[str, float]:
        """Probability of each label by cosine similarity between sentence embeddings of the text and the label."""
        vectors = torch.stack(self._embedded([text, *labels]))
        return dict(zip(labels, similarity_probabilities(vectors[:1], vectors[1:])[0].tolist(), strict=True))

    def notes(self, text: str) -> list[str]:
        """What the reader of an answer must know: that a text was too long to be read to its end."""
        tokens, window = self._read(text).tokens, self._resident.window
        template = "The text has {n} tokens; the first {read} were read."
        return [Text(template, n=f"{tokens:,}", read=f"{window:,}")] if tokens > window else []

    def embed(self, text: str) -> torch.Tensor:
        """Unit vector: the mean of the last hidden states over the text's tokens."""
        return self._embedded([text])[0]

    def _embedded(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """The vectors of several texts, which share passes with each other and with those of other callers."""
        return self._vectors.every(None, [(read, _length(read)) for read in map(self._read, texts)])

    @torch.inference_mode()
    def _logit_pass(self, questions: Sequence[_Question]) -> list[torch.Tensor]:
        """Logits of each question: the encoder runs once for all, each version's rows beside each other."""
        order = sorted(range(len(questions)), key=lambda i: id(questions[i].slot))
        slots = [questions[i].slot for i in order]
        outputs, batch = self._resident.run([questions[i].read.inputs for i in order], slots)
        logits: list[torch.Tensor] = []
        for slot, start, end in runs(slots):
            head = slot.head if slot else self._resident.own_head
            assert head is not None  # noqa: S101 - classify has checked
            part = slice(start, end)
            logits += head(_rows(outputs, part), {key: held[part] for key, held in batch.items()}).float().cpu()
        return [made for _, made in sorted(zip(order, logits, strict=True), key=lambda pair: pair[0])]

    @torch.inference_mode()
    def _embed_pass(self, reads: Sequence[Read]) -> list[torch.Tensor]:
        outputs, batch = self._resident.run([read.inputs for read in reads], [None] * len(reads))
        return list(mean_vectors(outputs.last_hidden_state, batch["attention_mask"]).cpu())


def _length(read: Read) -> int:
    return len(read.inputs["input_ids"])


def _rows(outputs: Any, part: slice) -> Any:  # noqa: ANN401 - a transformers ModelOutput
    """An encoder's outputs for some of its rows."""
    return type(outputs)(**{key: value[part] for key, value in outputs.items() if isinstance(value, torch.Tensor)})
