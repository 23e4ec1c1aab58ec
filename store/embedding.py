"""Sentence embeddings from an encoder's states, and labels chosen by similarity of meaning."""

from __future__ import annotations

import torch
from torch.nn import functional

TEMPERATURE = 0.05
"""Cosine similarities are divided by this before the softmax, as in the contrastive training of sentence encoders."""


def mean_vectors(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Unit vectors (rows, width): the mean of last hidden states (rows, tokens, width) where `mask` is 1.

    Reimers & Gurevych, Sentence-BERT, 2019.
    """
    weights = mask.unsqueeze(-1).to(states.dtype)
    return functional.normalize(((states * weights).sum(1) / weights.sum(1)).float(), dim=-1)


def similarity_probabilities(texts: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Probabilities (texts, labels) from unit vectors of both."""
    return (texts @ labels.T / TEMPERATURE).softmax(-1)
