"""Tiny random-weight models of the families that people bring, with tokenizers, built from configurations."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXT = Path(__file__).parent.parent.parent / "examples" / "notes.jsonl"
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
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
    size = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    longest = {"max_position_embeddings": 256}
    config, cls = {
        "bert": lambda: (transformers.BertConfig(**SMALL, **size, **longest), "BertModel"),
        "roberta": lambda: (transformers.RobertaConfig(**SMALL, **size, **longest), "RobertaModel"),
        "distilbert": lambda: (
            transformers.DistilBertConfig(dim=64, n_layers=2, n_heads=4, hidden_dim=128, **size, **longest),
            "DistilBertModel",
        ),
        "llama": lambda: (transformers.LlamaConfig(**SMALL, **size, **ends, **longest), "LlamaForCausalLM"),
        "qwen2": lambda: (
            transformers.Qwen2Config(**SMALL, num_key_value_heads=2, **size, **ends, **longest),
            "Qwen2ForCausalLM",
        ),
        "gpt2": lambda: (
            transformers.GPT2Config(n_embd=64, n_layer=2, n_head=4, n_positions=256, **size, **ends),
            "GPT2LMHeadModel",
        ),
        "t5": lambda: (
            transformers.T5Config(
                d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=size["pad_token_id"],
                eos_token_id=ends["eos_token_id"], **size,
            ),
            "T5ForConditionalGeneration",
        ),
        "bart": lambda: (
            transformers.BartConfig(
                d_model=64, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4,
                encoder_ffn_dim=128, decoder_ffn_dim=128, max_position_embeddings=256,
                decoder_start_token_id=ends["eos_token_id"], forced_eos_token_id=None, **size, **ends,
            ),
            "BartForConditionalGeneration",
        ),
    }[family]()  # fmt: skip
    model = getattr(transformers, cls)(config)
    with torch.no_grad():  # livelier than the usual initialization, so that adapters visibly change answers
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(family: str) -> PreTrainedTokenizerFast:
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|im_start|>", "<|im_end|>"]
    raw = Tokenizer(models.BPE(unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train([str(TEXT)], trainer)
    if family not in DECODERS:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    chat = family in ("llama", "qwen2")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="<|im_end|>" if chat else "</s>",
        unk_token="<unk>", mask_token="<mask>", model_max_length=256,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )  # fmt: skip
    if chat:
        tokenizer.chat_template = CHATML
    return tokenizer
