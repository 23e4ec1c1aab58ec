"""Tiny random-weight models of the families that people bring, with tokenizers, built from configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = Path(__file__).parent.parent.parent / "examples" / "notes.jsonl"
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
SMALL |= {"max_position_embeddings": 256}
BART = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}
SIZES: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": 64, "n_layers": 2, "n_heads": 4, "hidden_dim": 128, "max_position_embeddings": 256},
    "qwen2": {**SMALL, "num_key_value_heads": 2},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "t5": {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0},
    "bart": {
        **{f"{part}_{key}": value for part in ("encoder", "decoder") for key, value in BART.items()},
        **{"d_model": 64, "max_position_embeddings": 256, "decoder_start_token_id": 2, "forced_eos_token_id": None},
    },
}
"""Sizes of the families whose configurations have other names, or more of them, than `SMALL`."""
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

ENCODERS = ("bert", "roberta", "distilbert")
DECODERS = ("llama", "qwen2", "gpt2")
ENCODER_DECODERS = ("t5", "bart")
FAMILIES = ENCODERS + DECODERS + ENCODER_DECODERS


def make(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny model of `family` and its tokenizer into `folder`."""
    torch.manual_seed(seed)
    tokenizer = _tokenizer(family)
    kinds = ("pad",) if family in ENCODERS else ("pad", "bos", "eos")
    tokens = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in kinds}
    sizes = {**SIZES.get(family, SMALL), **tokens, "vocab_size": len(tokenizer)}
    auto = "AutoModelForCausalLM" if family in DECODERS else "AutoModelForSeq2SeqLM"
    auto = "AutoModel" if family in ENCODERS else auto
    model = getattr(transformers, auto).from_config(transformers.AutoConfig.for_model(family, **sizes))
    with torch.no_grad():  # livelier than the usual initialization, so that adapters visibly change answers
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(family: str) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    raw.train([str(TEXT)], trainer)
    if family not in DECODERS:
        ends = [("<s>", 1), ("</s>", 2)]
        raw.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    chat = family in ("llama", "qwen2")
    names = {f"{name}_token": f"<{name}>" for name in ("pad", "unk", "mask")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token="<s>",
        eos_token="<|im_end|>" if chat else "</s>",
        model_max_length=256,
        additional_special_tokens=SPECIAL[-2:],
        **names,
    )
    if chat:
        tokenizer.chat_template = CHATML
    return tokenizer
