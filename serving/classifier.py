"""Classification and embeddings: a version's own head, a base's own head, or any labels by similarity of meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from errors import InputError, Text
from models.chat_template import TokenizedText, truncation_note
from models.loading import mean_vectors, similarity_probabilities
from serving.base.base_model import BaseModel
from serving.base.slots import Slot, segments
from serving.compute_thread import Batcher

CACHED = 256
"""Texts whose tokens are cached: a request tokenizes its text twice, for notes and for the answer."""


@dataclass(frozen=True, eq=False)
class _Question:
    text: TokenizedText
    slot: Slot | None


class Classifier:
    """Classifies and embeds texts with one base model; calls may come from many threads."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        device = base.device.type
        self._logits: Batcher[_Question, torch.Tensor] = Batcher(self._logit_pass, device=device)
        self._vectors: Batcher[TokenizedText, torch.Tensor] = Batcher(self._embed_pass, device=device)
        self._tokenize = lru_cache(CACHED)(base.tokenize)

    @property
    def has_labels(self) -> bool:
        """True if the base has a trained head, and so labels of its own."""
        return self._base.own_head is not None

    def classify(self, text: str, slot: Slot | None) -> dict[str, float]:
        """Return the probability of each label of the slot's head, or of the base's own. `InputError` without one."""
        head = slot.head if slot else self._base.own_head
        if head is None:
            why = Text("{base} was not trained as a classifier.", base=self._base.model.id)
            then = "Type your own labels, or choose a trained version."
            raise InputError("The base has no labels of its own.", why, then)
        question = _Question(self._tokenize(text), slot)
        key = None if self._base.mixes else id(slot)
        logits = self._logits(key, question, question.text.read)
        return dict(zip(head.labels, logits.softmax(-1).tolist(), strict=True))

    def zero_shot(self, text: str, labels: Sequence[str]) -> dict[str, float]:
        """Return the probability of each label by cosine similarity of sentence embeddings of text and label."""
        vectors = torch.stack(self._embed([text, *labels]))
        return dict(zip(labels, similarity_probabilities(vectors[:1], vectors[1:])[0].tolist(), strict=True))

    def embed(self, text: str) -> torch.Tensor:
        """Return a unit vector, the mean of the last hidden states over the text's tokens; shape (width,)."""
        return self._embed([text])[0]

    def notes(self, text: str) -> list[str]:
        """Return a note for the reader of the answer if the text is truncated."""
        found = self._tokenize(text)
        return [truncation_note(found.tokens, found.read)] if found.tokens > found.read else []

    def _embed(self, texts: Sequence[str]) -> list[torch.Tensor]:
        """Embed several texts, in passes shared with other callers."""
        return self._vectors.map(None, [(text, text.read) for text in map(self._tokenize, texts)])

    @torch.inference_mode()
    def _logit_pass(self, questions: Sequence[_Question]) -> list[torch.Tensor]:
        """Return each question's logits; the encoder runs once for all, rows of one version side by side."""
        order = sorted(range(len(questions)), key=lambda i: id(questions[i].slot))
        slots = [questions[i].slot for i in order]
        outputs, batch = self._base.run([questions[i].text.inputs for i in order], slots)
        logits: list[torch.Tensor] = []
        for slot, start, end in segments(slots):
            head = slot.head if slot else self._base.own_head
            assert head is not None  # noqa: S101 - classify has checked
            part = slice(start, end)
            logits += head(_rows(outputs, part), {key: rows[part] for key, rows in batch.items()}).float().cpu()
        return [made for _, made in sorted(zip(order, logits, strict=True), key=lambda pair: pair[0])]

    @torch.inference_mode()
    def _embed_pass(self, texts: Sequence[TokenizedText]) -> list[torch.Tensor]:
        outputs, batch = self._base.run([text.inputs for text in texts], [None] * len(texts))
        return list(mean_vectors(outputs.last_hidden_state, batch["attention_mask"]).cpu())


def _rows(outputs: Any, part: slice) -> Any:  # noqa: ANN401 - a transformers ModelOutput
    """Return an encoder's outputs for some of its rows."""
    return type(outputs)(**{key: value[part] for key, value in outputs.items() if isinstance(value, torch.Tensor)})
