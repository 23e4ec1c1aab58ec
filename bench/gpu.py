"""An 8B-shaped Llama on a GPU: QLoRA, decoding with many versions, and a swap into a busy base; beside the libraries.

    python -m bench gpu                    all three
    python -m bench gpu decode --layers 8  one of them, on a quarter of the layers
    python -m bench gpu --tiny             a toy shape, also on a CPU: that it runs, not how fast

Weights are random, of the real shape (the vocabulary is that of the Generate tab's base, whose tokenizer it borrows),
made on the device and written once: both sides load the same folder. What random weights write is compared with
nothing; how much they write, and what they learn of the same rows, is.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.llama import Shape, write_base
from bench.measure import alternate, ratio
from bench.mixed import QUESTIONS, write
from bench.people import together
from bench.qlora import compare as compare_training
from bench.soak import resident_bytes
from bench.swap import Others, Swaps
from bench.tabs import Tab
from bench.versions import Site, make_site, publish
from models.loading import device
from store.adapters import BASE

FULL = Shape(hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
             num_key_value_heads=8)  # fmt: skip
TINY = Shape(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
NF4_BYTES = 0.516
"""Of a weight of a linear layer, with double quantization."""
COPIED = 2**30
"""Bytes that are copied on the device to see how fast it moves them."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    requests: int
    versions: int
    tokens: int
    rows: int
    length: int
    """Tokens of a training row, nearly."""


LARGE, SMALL = Sizes(64, 32, 64, 64, 2048), Sizes(4, 3, 4, 8, 64)


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Measure what is asked for; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench gpu")
    parser.add_argument("what", nargs="*", choices=[[], *CASES], default=[], help="all of them, unless named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=0, help="in place of all 32")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args(arguments)
    shape, sizes = (TINY, SMALL) if options.tiny else (FULL, LARGE)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as name:
        folder = Path(name)
        write_base(folder / "base", shape.with_layers(options.layers or shape.num_hidden_layers))
        return [row for what in options.what or CASES for row in CASES[what](folder, sizes, options.rounds)]


def _train(folder: Path, sizes: Sizes, rounds: int) -> list[dict[str, Any]]:
    return compare_training(folder / "base", folder, sizes.rows, sizes.length, rounds)


def _decode(folder: Path, sizes: Sizes, rounds: int) -> list[dict[str, Any]]:
    rate = bandwidth()
    return [row for quantize in ("none", "4bit") for row in _decode_held(folder, quantize, sizes, rounds, rate)]


def _decode_held(folder: Path, quantize: str, sizes: Sizes, rounds: int, rate: float) -> list[dict[str, Any]]:
    """Tokens a second on a base held so, with no version and with many."""
    site = make_site(folder / quantize, str(folder / "base"), "causal-lm", quantize)
    versions = publish(site, [f"v{i}" for i in range(sizes.versions)])
    _reset_peak()
    pool = site.pool()

    def once(refs: Sequence[str]) -> float:
        asked = [(refs[i % len(refs)], QUESTIONS[i % len(QUESTIONS)]) for i in range(sizes.requests)]
        seconds, _ = together([partial(write, pool, site, ref, text, sizes.tokens) for ref, text in asked])
        return sizes.requests * sizes.tokens / seconds

    ways = {"no version": [BASE], f"{sizes.versions} versions": [version.ref for version in versions]}
    contenders: Mapping[str, Callable[[], float]] = {name: partial(once, refs) for name, refs in ways.items()}
    alternate(contenders, 1)
    speeds = alternate(contenders, rounds)
    limit = sizes.requests * rate / bytes_a_step(site, quantize)
    first = next(iter(speeds))
    return [
        {
            "what": f"decode, {'NF4' if quantize == '4bit' else 'not quantized'}: {sizes.requests} requests, {name}",
            "tokens a second": round(statistics.median(speeds[name]), 1),
            "beside no version": str(ratio(speeds[name], speeds[first])) if name != first else "",
            "of the bandwidth's limit": f"{statistics.median(speeds[name]) / limit:.1%}",
            "peak GB": round(_peak() / 1e9, 2),
        }
        for name in speeds
    ]


def _swap(folder: Path, sizes: Sizes, rounds: int) -> list[dict[str, Any]]:
    site = make_site(folder / "swap", str(folder / "base"), "causal-lm")
    tab = Tab("generation", site, site.pool(), sizes.tokens)
    swaps = Swaps(tab, 1, comparable=False)
    return swaps.rows(rounds) + Others(tab, sizes.requests // 4, 4 * sizes.requests, 8).rows(rounds)


CASES: Mapping[str, Callable[[Path, Sizes, int], list[dict[str, Any]]]] = {
    "train": _train, "decode": _decode, "swap": _swap
}  # fmt: skip


def bandwidth() -> float:
    """Bytes a second that the device moves: a large block copied, read and written."""
    source = torch.zeros(COPIED if torch.cuda.is_available() else COPIED // 64, dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    return statistics.median(2 * source.numel() / _seconds(partial(target.copy_, source)) for _ in range(10))


def _seconds(act: Callable[[], Any]) -> float:
    _finish()
    started = time.perf_counter()
    act()
    _finish()
    return time.perf_counter() - started


def bytes_a_step(site: Site, quantize: str) -> float:
    """What one decode step reads of the weights, whatever the number of requests: every layer, and the output's."""
    config = site.model.config
    total = sum(file.stat().st_size for file in site.model.path.glob("*.safetensors")) / 2
    vocabulary = config["vocab_size"] * config["hidden_size"]
    whole = 2.0 if torch.cuda.is_available() else 4.0
    linear = NF4_BYTES if quantize == "4bit" else whole
    return float((total - 2 * vocabulary) * linear + vocabulary * whole)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> int:
    return int(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else resident_bytes()
