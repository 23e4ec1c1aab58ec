"""Write a Llama with random weights and the Generate tab's tokenizer: `python -m bench.random_bases FOLDER`.

By default so small that a run on it takes the time of everything but the model. A process of its own keeps transformers
out of one that measures memory.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from models.loading import device
from models.resolve import ModelStore
from models.tokenizer import load_tokenizer
from settings import Settings

TOKENIZER_OF = "HuggingFaceTB/SmolLM2-135M-Instruct"
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}


def write_llama(folder: Path, dtype: torch.dtype = torch.float32, positions: int = 2048, **sizes: int) -> None:
    """Write the model, made on the device, and its tokenizer; `sizes` are fields of `LlamaConfig`."""
    settings = Settings.from_env()
    tokenizer = load_tokenizer(ModelStore(settings.home / "models", settings.offline).resolve(TOKENIZER_OF))
    tokens = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    shape = {"vocab_size": len(tokenizer), "max_position_embeddings": positions, **(sizes or TINY)}
    torch.manual_seed(0)
    with device():
        net = LlamaForCausalLM._from_config(LlamaConfig(**shape, **tokens), dtype=dtype)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    write_llama(Path(sys.argv[1]))
