"""A base of random weights with the tokenizer of the Generate tab's: `python -m bench.tiny_base FOLDER` writes it.

So small that a run on it takes the time of everything but the model.
"""

from __future__ import annotations

import sys
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

from models.resolve import ModelStore
from models.tokenizer import load_tokenizer
from settings import Settings

TOKENIZER_OF = "HuggingFaceTB/SmolLM2-135M-Instruct"


def main(folder: Path) -> None:
    """Write the model and its tokenizer."""
    settings = Settings.from_env()
    tokenizer = load_tokenizer(ModelStore(settings.home / "models", settings.offline).resolve(TOKENIZER_OF))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
