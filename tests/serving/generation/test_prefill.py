"""prefill.py: prompts that are read in one pass are read as each is alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import DynamicCache

from serving.generation import prefill
from serving.generation.request_queue import Request
from serving.generation.sampling import TokenSampler
from serving.loaded import Loaded
from tests.helpers import tiny
from tests.helpers.answers import GREEDY, PROMPTS


@pytest.mark.parametrize("family", tiny.DECODERS)
def test_prompts_are_read_in_one_pass_and_each_as_it_is_alone(family: str, bases: Callable[[str], Loaded]) -> None:
    loaded = bases(family)
    net = loaded.base.net
    widths: list[tuple[int, ...]] = []
    embedding = net.get_input_embeddings()
    hook = embedding.register_forward_pre_hook(lambda _, args: widths.append(tuple(args[0].shape)))
    begin = list(range(40, 61))
    asked = [Request([*begin[:known], *PROMPTS[i]], GREEDY, None) for known in (0, 21) for i in (0, 1, 3)]

    def prompt(request: Request, known: int) -> prefill.PrefillRequest:
        made = prefill.PrefillRequest(request, TokenSampler(net, request.params, len(request.ids)), DynamicCache())
        if known:
            alone.read([made], known)
        return made

    with torch.inference_mode():
        alone, joint = prefill.Prefill(loaded.base), prefill.Prefill(loaded.base)
        expected = [alone.read([prompt(request, 0)], 100)[0] for request in asked]
        joint.requests = [prompt(request, known) for request, known in zip(asked, [0] * 3 + [21] * 3, strict=True)]
        widths.clear()
        while joint.requests:
            chosen = joint.choose(busy=False)
            logits = joint.read(chosen, joint.most_tokens(busy=False))
            for each, row in zip(chosen, logits, strict=True):
                assert row.tolist() == pytest.approx(expected[asked.index(each.request)].tolist(), abs=1e-4)
                layer = each.cache.layers[0]
                assert layer.keys.shape[:1] + layer.keys.shape[2:3] == (1, len(each.request.ids))
                joint.requests.remove(each)
    hook.remove()
    assert widths == [(3, 7), (3, 7)], "prompts with as many tokens prefilled share a pass"
