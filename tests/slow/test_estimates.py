"""Estimates of memory, made as a user sees them before anything is loaded, beside the memory that real runs took."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from bench.measure import link_models, run_training
from models.resolve import ModelStore
from models.tokenizer import load_tokenizer
from settings import REPOSITORY, Settings
from tasks import Columns, TabSpec
from tests.slow import size
from training.config import TrainConfig
from training.estimate.estimate import estimate_run
from training.events import RESULT
from training.runs.runs import Runs

MINILM, SMOLLM = "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M-Instruct"
WITHIN = 0.25
"""Share of the true peak that README allows an estimate to be off by."""
ROWS = 24
QWEN2: dict[str, Any] = {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 4}
QWEN2 |= {"num_attention_heads": 14, "num_key_value_heads": 2, "tie_word_embeddings": True}
WIDE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": (MINILM, "AutoModel", {"num_hidden_layers": 4}),
    "distilbert": (MINILM, "AutoModel", {"n_layers": 4}),
    "gpt2": (SMOLLM, "AutoModelForCausalLM", {"n_layer": 4}),
    "qwen2": (SMOLLM, "AutoModelForCausalLM", QWEN2),
    "t5": (SMOLLM, "AutoModelForSeq2SeqLM", {"d_ff": 1024, "num_layers": 4, "decoder_start_token_id": 0}),
}
"""Families -> tokenizer, class and sizes of a base with the widths of real ones, few layers and random weights."""
RUNS: list[tuple[str, int, dict[str, Any]]] = [
    (MINILM, 20, {"batch_size": 16}),
    ("gpt2", 150, {}),
    (MINILM, 450, {"max_length": 512, "rank": 32}),
    ("bert", 100, {}),
    ("qwen2", 600, {"max_length": 1024, "batch_size": 2}),
    (SMOLLM, 60, {}),
    ("t5", 200, {}),
    (MINILM, 60, {"quantize": "4bit"}),
    ("distilbert", 200, {"micro_batch_tokens": 2048, "batch_size": 8}),
    (SMOLLM, 300, {"max_length": 512, "batch_size": 2, "max_steps": 1}),
    (SMOLLM, 300, {"max_length": 512, "gradient_checkpointing": "on", "batch_size": 2, "max_steps": 1}),
    ("qwen2", 60, {"quantize": "8bit"}),
    (SMOLLM, 60, {"quantize": "4bit", "evaluations": 0, "max_steps": 1}),
    (MINILM, 100, {"use_dora": True, "batch_size": 16}),
    (SMOLLM, 60, {"packing": True, "rank": 16}),
]
"""Base, words of a row, and what differs from the preset."""


def make_base(name: str, folder: Path) -> str:
    """Return the id of a base that there is, or write one of that family."""
    if name not in WIDE:
        return name
    tokenizer_of, auto_class, sizes = WIDE[name]
    tokenizer = load_tokenizer(ModelStore(Settings.from_env().home.absolute() / "models").resolve(tokenizer_of))
    tokens = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    known = {key: token for key, token in tokens.items() if token is not None}
    config = transformers.AutoConfig.for_model(name, **{"vocab_size": len(tokenizer), **known, **sizes})
    getattr(transformers, auto_class).from_config(config, trust_remote_code=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def make_rows(words: int, target: str) -> Iterator[dict[str, str]]:
    """Make rows of half to one and a half times as many words, and answers of a sixth of them."""
    chance = np.random.default_rng(0)
    known = sorted(set((REPOSITORY / "examples" / "notes.jsonl").read_text(encoding="utf-8").split()))
    for number in range(ROWS):
        text = " ".join(chance.choice(known, int(words * chance.uniform(0.5, 1.5))))
        answer = " ".join(chance.choice(known, max(4, words // 6)))
        yield {"text": text, target: f"label {number % 4}" if target == "label" else answer}


@pytest.mark.slow
@pytest.mark.models
@pytest.mark.parametrize(("base", "words", "chosen"), RUNS[: int(size("ESTIMATE_RUNS", 2))])
def test_memory_is_estimated_within_a_quarter(base: str, words: int, chosen: dict[str, Any], tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "rows.jsonl"
    link_models(home)
    labels = base in (MINILM, "bert", "distilbert")
    task, target, prompt = ("text-classification", "label", "") if labels else ("causal-lm", "summary", "Sum: {text}")
    data.write_text("".join(json.dumps(row) + "\n" for row in make_rows(words, target)), encoding="utf-8")
    spec = TabSpec("tab", make_base(base, tmp_path / "base"), task, Columns("text", target), prompt)
    options = {"max_steps": 2, "batch_size": 4, "evaluations": 1, **chosen}
    config = TrainConfig.for_tab(spec, data, "mine", **options)
    case = Runs(Settings(home=home)).plan(config)
    assert case is not None
    run, _ = run_training(config, home)
    true = json.loads((run / RESULT).read_text(encoding="utf-8"))["measured"]["peak"]
    share = estimate_run(case).peak / true
    print(f"{base}, {words} words, {chosen}: {share:.2f} of {true / 1e9:.2f} GB")
    assert abs(share - 1) <= WITHIN
