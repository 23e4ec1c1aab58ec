"""sampling.py: the tokens that may come, and how often each does, are those of transformers' own processors."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from serving.generation import sampling as module
from serving.generation.sampling import SamplingParams, TokenSampler
from tests.helpers import tiny
from tests.helpers.answers import load

VOCABULARY = 600
IDS = [5, 6, 7]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(tiny.make("llama", tmp_path_factory.mktemp("sampling") / "llama")).base.net


def theirs(net: Any, params: SamplingParams, logits: torch.Tensor) -> torch.Tensor:
    """Return the probabilities that transformers' `generate` would draw from."""
    config, _ = net._prepare_generation_config(None, **params.arguments())
    return net._get_logits_processor(config, input_ids_seq_length=3, model_kwargs={})(None, logits).softmax(-1)[0]


def weights(sampler: TokenSampler, params: SamplingParams, logits: torch.Tensor) -> torch.Tensor:
    """Return the probabilities that ours draws from, by token."""
    seen: list[torch.Tensor] = []
    real = sampler._draw_index
    sampler._draw_index = lambda some: (seen.append(some), real(some))[1]  # type: ignore[method-assign]
    sampler(IDS, logits)
    [found] = seen
    if len(found) == VOCABULARY:
        return found
    at = (logits.float() / params.temperature).softmax(-1)[0].topk(len(found)).indices
    return torch.zeros(VOCABULARY, device=found.device).scatter(0, at, found / found.sum())


@pytest.mark.parametrize("spread", [0.01, 1.0, 5.0], ids=["flat", "usual", "steep"])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_tokens_are_drawn_from_the_distribution_of_transformers(
    net: Any, temperature: float, top_p: float, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LIKELIEST", 100)  # so that flat logits need all of them sorted
    for seed in range(5):
        logits = spread * torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(seed)).to(net.device)
        params = SamplingParams(temperature=temperature, top_p=top_p)
        found, wanted = weights(TokenSampler(net, params, 3), params, logits), theirs(net, params, logits)
        assert torch.allclose(found, wanted, atol=1e-5), (found - wanted).abs().max()


def test_each_token_comes_as_often_as_it_is_likely(net: Any) -> None:
    logits = torch.full((1, VOCABULARY), -30.0, device=net.device)
    logits[0, [3, 300, 599]] = torch.tensor([0.6, 0.3, 0.1], device=net.device).log()
    sampler = TokenSampler(net, SamplingParams(temperature=1.0, seed=5), 3)
    drawn = Counter(sampler(IDS, logits) for _ in range(4000))
    assert set(drawn) == {3, 300, 599}
    assert [drawn[token] / 4000 for token in (3, 300, 599)] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)


def test_temperature_0_takes_the_likeliest_token_after_the_bases_own_processors(net: Any) -> None:
    logits = torch.zeros(1, VOCABULARY, device=net.device)
    logits[0, 6], logits[0, 9] = 2.0, 1.9
    sampler = TokenSampler(net, SamplingParams(), 3)
    assert sampler.is_greedy and sampler(IDS, logits) == 6
    net.generation_config.repetition_penalty = 1.5  # 6 was in the prompt
    try:
        sampler = TokenSampler(net, SamplingParams(), 3)
        assert not sampler.is_greedy and sampler(IDS, logits) == 9
        assert sampler(IDS, logits, warp_only=True) == 6
    finally:
        net.generation_config.repetition_penalty = 1.0


def test_a_seed_draws_the_same_tokens(net: Any) -> None:
    logits = torch.zeros(1, VOCABULARY, device=net.device)

    def draw(seed: int | None) -> list[int]:
        sampler = TokenSampler(net, SamplingParams(temperature=1.0, top_p=0.9, seed=seed), 3)
        return [sampler(IDS, logits) for _ in range(6)]

    assert draw(1) == draw(1) != draw(2)
    assert draw(None) != draw(None)
