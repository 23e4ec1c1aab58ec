"""Bases resident at 4bit and 8bit: versions trained on either kind of base answer from them as PEFT does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import torch

from models.loading import load_model
from models.transformers_private import dense_weight
from serving.loaded import Loaded
from store.adapters import Version
from tests.conftest import Trained
from tests.helpers.answers import encode_texts, write
from tests.helpers.evaluations import TEXTS, answers_as_peft_does
from tests.helpers.exact import INT8_ATOL
from tests.helpers.training_helpers import train
from tests.helpers.versions import copy_of

pytestmark = pytest.mark.slow

QUANTIZED = ["4bit", "8bit"]
Residents = dict[tuple[str, str], Loaded]
"""Bases by family and quantization."""


@pytest.fixture(scope="module")
def versions(bert: Trained, llama: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Version]:
    """Versions by family and quantization of the base in training."""
    found = {("bert", "none"): bert.first, ("llama", "none"): llama.first}
    for family, trained in (("bert", bert), ("llama", llama)):
        found[family, "4bit"] = train(trained.spec, tmp_path_factory.mktemp(family), quantize="4bit")
    return found


@pytest.fixture(scope="module")
def residents(bert: Trained, llama: Trained) -> Residents:
    return {(f, q): Loaded(t.model, q) for f, t in (("bert", bert), ("llama", llama)) for q in QUANTIZED}


@pytest.mark.parametrize("trained_on", ["none", "4bit"])
@pytest.mark.parametrize("resident_at", QUANTIZED)
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_a_quantized_resident_answers_as_peft_on_the_same_base(
    family: str, resident_at: str, trained_on: str, residents: Residents, versions: dict[tuple[str, str], Version]
) -> None:
    loaded, version = residents[family, resident_at], versions[family, trained_on]
    assert loaded.base.quantization == resident_at
    answers_as_peft_does(loaded, version, atol=INT8_ATOL if resident_at == "8bit" else 1e-4)


def in_threads(*work: Callable[[], object]) -> None:
    with ThreadPoolExecutor(len(work)) as pool:
        list(pool.map(lambda act: act(), work))


@pytest.mark.parametrize("quantize", QUANTIZED)
def test_texts_of_concurrent_callers_are_those_of_one(quantize: str, residents: Residents, llama: Trained) -> None:
    loaded = residents["llama", quantize]

    def ask(version: Version | None, text: str) -> str:
        with loaded.base.slots.pin(version) as slot:
            return write(loaded, text, "Sum up: {text}", slot, max_new_tokens=8)

    asked = [(v, t) for v in (None, llama.first, llama.second) for t in TEXTS[:2]]
    golden = [ask(*one) for one in asked]
    assert len(set(golden)) > 2

    def work(n: int) -> None:
        assert [ask(*one) for one in asked[n:] + asked[:n]] == golden[n:] + golden[:n]

    in_threads(*(partial(work, n) for n in range(5)))


@pytest.mark.parametrize("quantize", QUANTIZED)
def test_labels_embeddings_and_swaps_side_by_side(
    quantize: str, residents: Residents, bert: Trained, tmp_path: Path
) -> None:
    """Two kinds of passes, and the check of each newly loaded version, at the same time on one base."""
    loaded = residents["bert", quantize]

    def classify(version: Version, text: str) -> dict[str, float]:
        with loaded.base.slots.pin(version) as slot:
            return loaded.classifier.classify(text, slot)

    def match(text: str) -> dict[str, float]:
        return loaded.classifier.zero_shot(text, ["praise", "delay"])

    golden = {(v.ref, t): classify(v, t) for v in (bert.first, bert.second) for t in TEXTS}
    matched = {t: match(t) for t in TEXTS}
    copies = [copy_of(bert.first, tmp_path, f"copy{i}") for i in range(12)]

    def label(seed: int) -> None:
        for i in range(30):
            version, text = (bert.first, bert.second)[(i + seed) % 2], TEXTS[i % 3]
            assert classify(version, text) == pytest.approx(golden[version.ref, text], abs=2e-2)

    def match_all() -> None:
        for text in TEXTS[:3] * 10:
            assert match(text) == pytest.approx(matched[text], abs=2e-2)

    def swap() -> None:
        for version in copies:
            assert classify(version, TEXTS[0]) == pytest.approx(golden[bert.first.ref, TEXTS[0]], abs=2e-2)

    in_threads(partial(label, 0), partial(label, 1), match_all, match_all, swap)


@pytest.mark.parametrize("quantize", QUANTIZED)
def test_passes_overlap_unless_the_base_is_8bit(
    quantize: str, residents: Residents, bert: Trained, tmp_path: Path
) -> None:
    """bitsandbytes' 8-bit layers keep state of the running pass in the module."""
    loaded, inside, overlapped = residents["bert", quantize], list[int](), threading.Event()
    copies = [copy_of(bert.first, tmp_path, f"apart{i}") for i in range(2)]

    def enter(*_: object) -> None:
        inside.append(threading.get_ident())
        if len(inside) > 1:
            overlapped.set()
        overlapped.wait(0.2)  # the chance for another pass to begin

    def leave(*_: object) -> None:
        inside.remove(threading.get_ident())

    def encode(version: Version) -> None:
        with loaded.base.slots.pin(version) as slot:
            encode_texts(loaded.base, [TEXTS[0]], slot)

    body = loaded.base.body
    hooks = [body.register_forward_pre_hook(enter), body.register_forward_hook(leave)]
    try:
        in_threads(*(partial(encode, copy) for copy in copies), partial(loaded.classifier.embed, "a text"))
    finally:
        for hook in hooks:
            hook.remove()
    assert overlapped.is_set() == (quantize != "8bit")


def test_packed_weights_stay_as_they_were_quantized(llama: Trained) -> None:
    """On processors with bfloat16, bitsandbytes rearranges them in a pass, and what reads them then reads noise."""
    net, _ = load_model(llama.model, "AutoModelForCausalLM", "4bit", torch.bfloat16)
    layers = [module for module in net.modules() if type(module).__name__ == "Linear4bit"]
    before = [(layer.weight.data.clone(), layer.weight.quant_state.nested, dense_weight(layer)) for layer in layers]
    with torch.inference_mode():
        net(input_ids=torch.arange(4, 40, device=net.device)[None])
    assert layers
    for layer, (weight, nested, dense) in zip(layers, before, strict=True):
        assert torch.equal(layer.weight.data, weight) and layer.weight.quant_state.nested == nested
        assert torch.equal(dense_weight(layer), dense)
