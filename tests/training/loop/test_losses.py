"""training/loop/losses.py: the loss at learned positions alone is transformers' own loss."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from tests.helpers import tiny
from training.data.tokens import IGNORED
from training.loop.batches import collate, pack
from training.loop.losses import summed_loss, token_losses

ROWS = [
    {"input_ids": [10, 11, 12, 13, 14, 15], "labels": [IGNORED, IGNORED, IGNORED, 13, 14, 15]},
    {"input_ids": [20, 21, 22], "labels": [20, 21, IGNORED]},
    {"input_ids": [30, 31, 32, 33], "labels": [IGNORED, 31, IGNORED, 33]},
]


def load(family: str, folder: Path) -> transformers.PreTrainedModel:
    auto = "AutoModelForSeq2SeqLM" if family in tiny.ENCODER_DECODERS else "AutoModelForCausalLM"
    return getattr(transformers, auto).from_pretrained(tiny.make(family, folder / family)).eval()


@pytest.mark.parametrize("family", [*tiny.DECODERS, *tiny.ENCODER_DECODERS])
def test_the_loss_and_its_gradient_are_the_models_own(family: str, tmp_path: Path) -> None:
    net = load(family, tmp_path)
    weight = next(p for name, p in net.named_parameters() if "1" in name and p.dim() == 2)
    batch = collate(ROWS, pad=0)
    learned = batch["labels"] != IGNORED
    count = int((learned if net.config.is_encoder_decoder else learned[:, 1:]).sum())
    own = net(**batch).loss
    own.backward()
    gradient, weight.grad = weight.grad.clone(), None
    loss = summed_loss(net, batch)[0] / count
    loss.backward()
    assert torch.allclose(loss, own, atol=1e-5) and gradient.abs().max() > 0
    assert torch.allclose(weight.grad, gradient, atol=1e-5)
    assert torch.allclose(net(**batch).loss, own), "the output layer is as it was"


@pytest.mark.parametrize("family", tiny.DECODERS)
def test_packed_rows_do_not_see_each_other(family: str, tmp_path: Path) -> None:
    net = load(family, tmp_path)
    alone = torch.stack([summed_loss(net, collate([row], pad=0))[0] for row in ROWS])
    assert torch.allclose(summed_loss(net, pack(ROWS))[0], alone.sum(), atol=1e-4)
    losses, rows = token_losses(net, collate(ROWS, pad=0))
    assert rows.tolist() == [0, 0, 0, 1, 2, 2]
    assert torch.allclose(losses[rows == 2].sum(), alone[2], atol=1e-5)
