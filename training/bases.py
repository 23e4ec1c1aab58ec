"""A small table of bases that people take: what they are for, their languages, licences and sizes, and why.

Facts are those of the models' own pages and configurations; sizes come from their `config.json`. It is advice: any
other base can be named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from training.shapes import Shape, of_config


@dataclass(frozen=True)
class Base:
    """One row of the table."""

    id: str
    answers: Literal["label", "text"]
    languages: str
    """en, zh, many."""
    licence: str
    config: Mapping[str, Any]
    """The sizes in its `config.json`, by Llama's names; `t5` ones by T5's."""
    why: str
    """Who would take it."""

    @property
    def key(self) -> str:
        """What its texts on the page go by."""
        return self.id.rpartition("/")[2]

    @property
    def shape(self) -> Shape:
        """Its sizes."""
        found = of_config(self.config)
        if found is None:
            raise ValueError(self.id)
        return found


def _encoder(width: int, layers: int, heads: int, inner: int, vocabulary: int, window: int) -> dict[str, Any]:
    return {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
            "intermediate_size": inner, "vocab_size": vocabulary, "max_position_embeddings": window}  # fmt: skip


def _decoder(width: int, layers: int, heads: int, keys: int, inner: int, vocabulary: int, window: int,
             tied: bool = True, head_dim: int = 0) -> dict[str, Any]:  # fmt: skip
    return {**_encoder(width, layers, heads, inner, vocabulary, window), "num_key_value_heads": keys,
            "head_dim": head_dim or width // heads, "rms_norm_eps": 1e-6, "tie_word_embeddings": tied}  # fmt: skip


def _t5(width: int, layers: int, heads: int, inner: int) -> dict[str, Any]:
    return {"d_model": width, "num_layers": layers, "num_decoder_layers": layers, "num_heads": heads, "d_ff": inner,
            "d_kv": 64, "feed_forward_proj": "gated-gelu", "vocab_size": 32128, "n_positions": 512,
            "is_encoder_decoder": True, "tie_word_embeddings": False}  # fmt: skip


APACHE, MIT = "Apache-2.0", "MIT"
BASES: Sequence[Base] = (
    Base("sentence-transformers/all-MiniLM-L6-v2", "label", "en", APACHE, _encoder(384, 6, 12, 1536, 30522, 512),
         "small and quick on two cores; also tells labels apart without training"),
    Base("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", "label", "many", APACHE,
         _encoder(384, 12, 12, 1536, 250037, 512), "some fifty languages, Chinese among them, still small"),
    Base("google-bert/bert-base-chinese", "label", "zh", APACHE, _encoder(768, 12, 12, 3072, 21128, 512),
         "made for Chinese alone, and a tenth of the vocabulary of a multilingual one"),
    Base("FacebookAI/roberta-base", "label", "en", MIT, _encoder(768, 12, 12, 3072, 50265, 514),
         "more accurate on English than MiniLM, and about eight times the work"),
    Base("answerdotai/ModernBERT-base", "label", "en", APACHE, _encoder(768, 22, 12, 1728, 50368, 8192),
         "for long English texts: up to 8,192 tokens"),
    Base("FacebookAI/xlm-roberta-base", "label", "many", MIT, _encoder(768, 12, 12, 3072, 250002, 514),
         "a hundred languages, where accuracy matters more than time"),
    Base("HuggingFaceTB/SmolLM2-135M-Instruct", "text", "en", APACHE, _decoder(576, 30, 9, 3, 1536, 49152, 8192),
         "runs on two cores; fluent, and often wrong"),
    Base("HuggingFaceTB/SmolLM2-360M-Instruct", "text", "en", APACHE, _decoder(960, 32, 15, 5, 2560, 49152, 8192),
         "better answers than the 135M for about three times the work"),
    Base("Qwen/Qwen2.5-0.5B-Instruct", "text", "many", APACHE, _decoder(896, 24, 14, 2, 4864, 151936, 32768),
         "the smallest that writes good Chinese"),
    Base("Qwen/Qwen3-0.6B", "text", "many", APACHE, _decoder(1024, 28, 16, 8, 3072, 151936, 40960, head_dim=128),
         "Chinese, English and many more; newer than Qwen2.5"),
    Base("Qwen/Qwen2.5-1.5B-Instruct", "text", "many", APACHE, _decoder(1536, 28, 12, 2, 8960, 151936, 32768),
         "much better Chinese and English; a GPU, or patience"),
    Base("HuggingFaceTB/SmolLM2-1.7B-Instruct", "text", "en", APACHE, _decoder(2048, 24, 32, 32, 8192, 49152, 8192),
         "the best English of its family; a GPU, or patience"),
    Base("meta-llama/Llama-3.2-1B-Instruct", "text", "many", "Llama 3.2",
         _decoder(2048, 16, 32, 8, 8192, 128256, 131072, head_dim=64),
         "eight languages, Chinese not among them; its licence has to be accepted on the Hub"),
    Base("Qwen/Qwen2.5-7B-Instruct", "text", "many", APACHE,
         _decoder(3584, 28, 28, 4, 18944, 152064, 32768, tied=False), "strong in Chinese and English; a GPU and 4bit"),
    Base("Qwen/Qwen3-8B", "text", "many", APACHE,
         _decoder(4096, 36, 32, 8, 12288, 151936, 40960, tied=False, head_dim=128),
         "the strongest of this table; a GPU of 16 GB or more and 4bit"),
    Base("google/flan-t5-small", "text", "en", APACHE, _t5(512, 8, 6, 1024),
         "for short answers and summaries; quick, and not for conversations"),
)  # fmt: skip
"""Smaller ones of a kind first."""


def named(id: str) -> Base | None:
    """The row of that base."""
    return next((base for base in BASES if base.id == id.partition("@")[0]), None)
