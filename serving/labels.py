"""Classification: a version's own head, a base's own head, or any labels by similarity of meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from errors import InputError
from serving.batching import Batcher
from serving.resident import Resident
from serving.slots import Slot
from store.embedding import mean_vectors, similarity_probabilities
from store.prompts import neutralize


@dataclass(frozen=True, eq=False)
class _Question:
    text: str
    slot: Slot | None


class Labels:
    """Everything about labels that can be asked of one resident base; calls may come from many threads."""

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._logits: Batcher[_Question, torch.Tensor] = Batcher(self._logit_pass)
        self._vectors: Batcher[str, torch.Tensor] = Batcher(self._embed_pass)

    def classify(self, text: str, slot: Slot | None) -> dict[str, float]:
        """Probability of each label of the slot's head, or of the base's own. Raises `InputError` if it has none."""
        head = slot.head if slot else self._resident.own_head
        if head is None:
            raise InputError(
                "The base has no labels of its own.",
                f"{self._resident.model.id} was not trained as a classifier.",
                "Type your own labels, or choose a trained version.",
            )
        logits = self._logits(id(slot), _Question(text, slot))
        return dict(zip(head.labels, logits.softmax(-1).tolist(), strict=True))

    def zero_shot(self, text: str, labels: Sequence[str]) -> dict[str, float]:
        """Probability of each label by cosine similarity between sentence embeddings of the text and the label."""
        vectors = torch.stack([self.embed(t) for t in (text, *labels)])
        return dict(zip(labels, similarity_probabilities(vectors[:1], vectors[1:])[0].tolist(), strict=True))

    def notes(self, text: str) -> list[str]:
        """What the reader of an answer must know: that a text was too long to be read to its end."""
        tokens = len(self._resident.tokenizer(neutralize(self._resident.tokenizer, text))["input_ids"])
        window = self._resident.window
        return [f"The text has {tokens:,} tokens; the first {window:,} were read."] if tokens > window else []

    def embed(self, text: str) -> torch.Tensor:
        """Unit vector: the mean of the last hidden states over the text's tokens."""
        return self._vectors(None, text)

    @torch.inference_mode()
    def _logit_pass(self, questions: Sequence[_Question]) -> list[torch.Tensor]:
        slot = questions[0].slot
        outputs, batch = self._resident.encode([q.text for q in questions], slot)
        head = slot.head if slot else self._resident.own_head
        assert head is not None  # noqa: S101 - classify has checked
        return list(head(outputs, batch).float().cpu())

    @torch.inference_mode()
    def _embed_pass(self, texts: Sequence[str]) -> list[torch.Tensor]:
        outputs, batch = self._resident.encode(texts, None)
        return list(mean_vectors(outputs.last_hidden_state, batch["attention_mask"]).cpu())
