"""serving/generation/prefill.py: prompts that are read in one pass are read as each is alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import DynamicCache

from serving.generation import prefill
from serving.generation.request import Request
from serving.generation.sampler import Choice
from serving.loaded import Loaded
from tests.helpers import tiny
from tests.serving.generation.test_continuous import GREEDY, PROMPTS, bases

__all__ = ["bases"]


@pytest.mark.parametrize("family", tiny.DECODERS)
def test_prompts_of_several_versions_are_read_in_one_pass_and_each_as_it_is_alone(
    family: str, bases: Callable[[str], Loaded]
) -> None:
    loaded = bases(family)
    resident, net = loaded.resident, loaded.resident.net
    widths: list[tuple[int, ...]] = []
    embedding = net.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, args: widths.append(tuple(args[0].shape)))
    begin = list(range(40, 61))
    asked = [Request([*begin[:known], *PROMPTS[i]], GREEDY, None) for known in (0, 21) for i in (0, 1, 3)]

    def joiner(request: Request, known: int) -> prefill.Joiner:
        made = prefill.Joiner(request, Choice(net, request), DynamicCache())
        if known:
            alone.read([made], known)
        return made

    with torch.inference_mode():
        alone, joint = prefill.Reading(resident), prefill.Reading(resident)
        expected = [alone.read([joiner(request, 0)], 100)[0] for request in asked]
        joint.joining = [joiner(request, known) for request, known in zip(asked, [0] * 3 + [21] * 3, strict=True)]
        widths.clear()
        while joint.joining:
            chosen = joint.choose(busy=False)
            logits = joint.read(chosen, joint.most(busy=False))
            for each, row in zip(chosen, logits, strict=True):
                assert row.tolist() == pytest.approx(expected[asked.index(each.request)].tolist(), abs=1e-4)
                layer = each.cache.layers[0]
                assert layer.keys.shape[:1] + layer.keys.shape[2:3] == (1, len(each.request.ids))
                joint.joining.remove(each)
    hook.remove()
    assert widths == [(3, 7), (3, 7)], "those with as much behind them go together"
