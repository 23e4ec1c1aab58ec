"""A base of random weights with the widths of real ones and few layers: `python -m bench.sized_base FAMILY FOLDER`.

Its tokenizer is that of one of the bases that come with Graft, so that rows are as long as they would be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import transformers

from models.resolve import ModelStore
from models.tokenizer import load_tokenizer
from settings import Settings

ENCODER, WRITER = "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M-Instruct"
LAYERS = 4

FAMILIES: Mapping[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "bert": (ENCODER, lambda shared: transformers.BertModel(transformers.BertConfig(
        hidden_size=768, num_hidden_layers=LAYERS, num_attention_heads=12, intermediate_size=3072, **shared))),
    "distilbert": (ENCODER, lambda shared: transformers.DistilBertModel(transformers.DistilBertConfig(
        dim=768, n_layers=LAYERS, n_heads=12, hidden_dim=3072, **shared))),
    "qwen2": (WRITER, lambda shared: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(
        hidden_size=896, num_hidden_layers=LAYERS, num_attention_heads=14, num_key_value_heads=2,
        intermediate_size=4864, tie_word_embeddings=True, **shared))),
    "gpt2": (WRITER, lambda shared: transformers.GPT2LMHeadModel(transformers.GPT2Config(
        n_embd=768, n_layer=LAYERS, n_head=12, n_positions=1024, **shared))),
    "t5": (WRITER, lambda shared: transformers.T5ForConditionalGeneration(transformers.T5Config(
        d_model=512, d_kv=64, d_ff=1024, num_layers=LAYERS, num_heads=8, decoder_start_token_id=0, **shared))),
}  # fmt: skip
"""For each family whose tokenizer it borrows, and the model."""


def main(family: str, folder: Path) -> None:
    """Write the model and its tokenizer."""
    settings = Settings.from_env()
    borrowed, make = FAMILIES[family]
    tokenizer = load_tokenizer(ModelStore(settings.home / "models", settings.offline).resolve(borrowed))
    shared = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id,
              "eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}  # fmt: skip
    make({key: value for key, value in shared.items() if value is not None}).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
