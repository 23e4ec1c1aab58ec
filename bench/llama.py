"""A Llama of any shape with random weights, made on the device, with the tokenizer of the Generate tab's base."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.versions import SMOLLM
from models.loading import device
from models.resolve import ModelStore
from models.tokenizer import load_tokenizer
from settings import Settings

POSITIONS = 8192


@dataclass(frozen=True)
class Shape:
    """Fields of a Llama's configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int

    def with_layers(self, layers: int) -> Shape:
        """The same with so many layers."""
        return replace(self, num_hidden_layers=layers)


def write_base(folder: Path, shape: Shape) -> None:
    """Write the model, in bfloat16, and its tokenizer."""
    settings = Settings.from_env()
    tokenizer = load_tokenizer(ModelStore(settings.home / "models", settings.offline).resolve(SMOLLM))
    config = LlamaConfig(
        **asdict(shape), vocab_size=len(tokenizer), max_position_embeddings=POSITIONS, dtype="bfloat16",
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device():
            net = LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    net.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
