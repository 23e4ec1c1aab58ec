"""training/loop/losses.py: the loss of the learned positions alone is transformers' own loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from tests.helpers import tiny
from training.data.tokens import IGNORED
from training.loop.batches import collate, pack
from training.loop.losses import token_loss, token_losses

ROWS = [
    {"input_ids": [10, 11, 12, 13, 14, 15], "labels": [IGNORED, IGNORED, IGNORED, 13, 14, 15]},
    {"input_ids": [20, 21, 22], "labels": [20, 21, IGNORED]},
    {"input_ids": [30, 31, 32, 33], "labels": [IGNORED, 31, IGNORED, 33]},
]


def load(family: str, folder: Path) -> transformers.PreTrainedModel:
    auto = "AutoModelForSeq2SeqLM" if family in tiny.ENCODER_DECODERS else "AutoModelForCausalLM"
    return getattr(transformers, auto).from_pretrained(tiny.make(family, folder / family)).eval()


@pytest.mark.parametrize("family", [*tiny.DECODERS, *tiny.ENCODER_DECODERS])
def test_it_is_the_models_own_loss_with_its_own_gradient(family: str, tmp_path: Path) -> None:
    net = load(family, tmp_path)
    weight = next(p for name, p in net.named_parameters() if "1" in name and p.dim() == 2)
    batch = collate(ROWS, pad=0)
    learned = batch["labels"] != IGNORED
    count = int((learned if net.config.is_encoder_decoder else learned[:, 1:]).sum())
    own = net(**batch).loss
    own.backward()
    gradient, weight.grad = weight.grad.clone(), None
    loss = token_loss(net, batch) / count
    loss.backward()
    assert torch.allclose(loss, own, atol=1e-5) and gradient.abs().max() > 0
    assert torch.allclose(weight.grad, gradient, atol=1e-5)


@pytest.mark.parametrize("family", tiny.DECODERS)
def test_packed_rows_do_not_see_each_other(family: str, tmp_path: Path) -> None:
    net = load(family, tmp_path)
    alone = torch.stack([token_loss(net, collate([row], pad=0)) for row in ROWS]).sum()
    assert torch.allclose(token_loss(net, pack(ROWS)), alone, atol=1e-4)


def test_each_learned_token_knows_its_row(tmp_path: Path) -> None:
    net = load("llama", tmp_path)
    losses, rows = token_losses(net, collate(ROWS, pad=0))
    assert rows.tolist() == [0, 0, 0, 1, 2, 2]
    alone = token_loss(net, collate(ROWS[2:], pad=0))
    assert torch.allclose(losses[rows == 2].sum(), alone, atol=1e-5)


def test_the_output_layer_is_left_as_it_was(tmp_path: Path) -> None:
    net = load("llama", tmp_path)
    token_loss(net, collate(ROWS, pad=0))
    assert net(torch.tensor([[1, 2, 3]])).logits.shape[:2] == (1, 3)
