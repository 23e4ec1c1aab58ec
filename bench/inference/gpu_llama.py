"""An 8B-shaped Llama on a GPU: QLoRA beside PEFT and bitsandbytes, and decoding with many versions.

    python -m bench gpu                    both
    python -m bench gpu decode --layers 8  one of them, on a quarter of the layers
    python -m bench gpu --size tiny        a toy shape, also on a CPU: that it runs, not how fast

Weights are random and of the real shape (but for the vocabulary, that of the Generate tab's base, whose tokenizer it
borrows); both sides load the same folder. Texts that random weights write are compared with nothing; their number, and
the loss on the same rows, is. Training rows are nearly as long as allowed, as packing makes them.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.bench_tab import BenchTab, open_tab, publish
from bench.finetuning.train_recipe import against_stock, chat_case
from bench.inference.generation_speed import ask_versions
from bench.measure import Figures, Row, alternate, parse, resident_bytes, summarize
from bench.random_bases import TINY, write_llama
from models.loading import device
from settings import REPOSITORY
from store.adapters import BASE

GPU = torch.cuda.is_available()
FULL = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
FULL |= {"num_key_value_heads": 8}
SIZES = {
    "full": {"requests": 64, "versions": 32, "tokens": 64, "rows": 64, "length": 2048},
    "tiny": {"requests": 4, "versions": 3, "tokens": 4, "rows": 8, "length": 64},
}
"""Requests and versions decoded at once, tokens of an answer; training rows, and tokens of one."""
NF4_BYTES = 0.516
"""Bytes of a weight of a linear layer, with double quantization."""
COPIED = 2**30 if GPU else 2**24
"""Bytes that are copied on the device to see how fast it moves them."""


def run(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Measure each part."""
    parts = {"train": _train, "decode": _decode}
    options = parse(__doc__, arguments, list(parts), rounds=5, layers=0, size="full")
    shape = TINY if options.size == "tiny" else FULL
    shape = {**shape, "num_hidden_layers": options.layers or shape["num_hidden_layers"]}
    write_llama(folder / "base", torch.bfloat16, positions=8192, **shape)
    return [row for part in options.parts for row in parts[part](folder, SIZES[options.size], options.rounds)]


def _train(folder: Path, sizes: Mapping[str, int], rounds: int) -> list[Row]:
    base, length = str(folder / "base"), sizes["length"]
    chats = make_chats(open_tab(folder, "causal-lm", base).tokenizer, sizes["rows"] + 4, length)
    options = {"rank": 16, "alpha": 32.0, "learning_rate": 1e-4, "quantize": "4bit", "gradient_checkpointing": "on"}
    case = chat_case("qlora", folder, base, chats[4:], chats[:4], max_length=length, **options)
    return against_stock(case, folder, rounds)


def make_chats(tokenizer: Any, count: int, length: int) -> list[list[dict[str, str]]]:  # noqa: ANN401
    """Make conversations of one turn from words of the example notes, nearly `length` tokens long and no longer."""
    words, dice = (REPOSITORY / "examples" / "notes.jsonl").read_text(encoding="utf-8").split(), random.Random(0)
    chats: list[list[dict[str, str]]] = []
    while len(chats) < count:
        chat = [{"role": "user", "content": f"Note {len(chats)}?"}, {"role": "assistant", "content": ""}]
        empty = len(tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False))
        ids = tokenizer(" ".join(dice.choices(words, k=length)))["input_ids"]
        # Cutting at a token and reading it again may give a token more or less.
        chat[1]["content"] = tokenizer.decode(ids[: length - empty - 4])
        chats.append(chat)
    return chats


def _decode(folder: Path, sizes: Mapping[str, int], rounds: int) -> list[Row]:
    """Measure on a plain and an NF4 base, beside the bound that the bandwidth of memory sets."""
    rate, rows = _bandwidth(), list[Row]()
    for quantize in ("none", "4bit"):
        tab = open_tab(folder / quantize, "causal-lm", str(folder / "base"), quantize)
        versions = publish(tab, [f"v{i}" for i in range(sizes["versions"])])
        if GPU:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        bound = sizes["requests"] * rate / bytes_per_step(tab, quantize)
        plain, mixed = (f"decode, quantize {quantize}: {count} versions" for count in (0, len(versions)))
        refs = {plain: [BASE], mixed: [version.ref for version in versions]}
        contenders = {name: partial(_decode_once, tab, some, sizes, bound) for name, some in refs.items()}
        alternate(contenders, 1)
        rows += summarize(alternate(contenders, rounds), {mixed: plain})
    return rows


def _decode_once(tab: BenchTab, refs: Sequence[str], sizes: Mapping[str, int], bound: float, _: int) -> Figures:
    seconds, texts = ask_versions(tab, refs, sizes["requests"], sizes["tokens"])
    speed = len(texts) * sizes["tokens"] / seconds  # random weights seldom end a text before
    peak = torch.cuda.max_memory_allocated() if GPU else resident_bytes()
    return {"tokens a second": speed, "% of the bandwidth's bound": 100 * speed / bound, "peak GB": peak / 1e9}


def _bandwidth() -> float:
    """Measure how many bytes a second the device moves: a large block copied, read and written."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device())
    target, seconds = torch.empty_like(source), []
    for _ in range(10):
        started = time.perf_counter()
        target.copy_(source)
        target[-1].item()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return 2 * COPIED / statistics.median(seconds)


def bytes_per_step(tab: BenchTab, quantize: str) -> float:
    """Count the bytes of weights that a decode step reads for any number of requests: all layers and the output."""
    weights = sum(file.stat().st_size for file in tab.model.path.glob("*.safetensors")) / 2
    vocabulary = tab.model.config["vocab_size"] * tab.model.config["hidden_size"]
    plain = 2.0 if GPU else 4.0
    linear = NF4_BYTES if quantize == "4bit" else plain
    return float((weights - 2 * vocabulary) * linear + vocabulary * plain)
