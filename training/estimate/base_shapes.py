"""What a base is made of, from its `config.json` and the headers of its weights; no weight is read, no torch imported.

The families name the same sizes differently. A base whose sizes are not found under any of the names has no shape, and
what a run on it needs is not estimated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any, Literal

from models import weights
from models.resolve import Model

NAMES: Mapping[str, Sequence[str]] = {
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "heads": ("num_attention_heads", "n_head", "encoder_attention_heads", "num_heads", "n_heads"),
    "inner": ("intermediate_size", "n_inner", "d_ff", "encoder_ffn_dim", "hidden_dim"),
    "layers": ("num_hidden_layers", "n_layer", "encoder_layers", "num_layers", "n_layers"),
}
"""A size, and what the configurations of the families call it."""
NOT_ADAPTED = re.compile(
    r"embed|\bwte\b|\bwpe\b|\bshared\b|relative_attention_bias|lm_head|classifier|\bscore\b|\bcls\b|pre_classifier"
)
"""Matrices that LoRA leaves alone: embeddings, the output layer, heads."""
ATTENTION = ("q", "k", "v", "o", "q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "query", "key", "value", "q_lin",
             "k_lin", "v_lin", "out_lin", "c_attn", "qkv_proj")  # fmt: skip
"""Last names of the layers that the setting `targets` calls attention."""


@dataclass(frozen=True)
class Linear:
    """Layers of the body with one name and size."""

    name: str
    """The last part of their name, such as q_proj."""
    inputs: int
    outputs: int
    count: int = 1


@dataclass(frozen=True)
class Shape:
    """The sizes that memory and time follow from."""

    width: int
    layers: int
    """Of an encoder-decoder: of both halves together."""
    heads: int
    keys: int
    """Width of the keys, and of the values, of all heads together."""
    inner: int
    """Width of the feed-forward part."""
    vocabulary: int
    gated: bool
    """Whether the feed-forward part has a gate, and rotary positions and root-mean-square norms go with it."""
    encoder_decoder: bool
    linear: tuple[Linear, ...]
    parameters: int
    stored: int = 0
    """Bytes of its files."""
    window: int = 2048
    """Tokens that it takes."""

    @property
    def multiplied(self) -> int:
        """Parameters of the linear layers of the body, which every token meets."""
        return sum(layer.inputs * layer.outputs * layer.count for layer in self.linear)

    @property
    def adapted(self) -> int:
        """The same as a LoRA matrix pair of rank 1 sees them: inputs and outputs of every linear layer."""
        return sum((layer.inputs + layer.outputs) * layer.count for layer in self.linear)

    def chosen(self, targets: str) -> tuple[Linear, ...]:
        """The layers that the setting `targets` names."""
        if targets == "all-linear":
            return self.linear
        names = ATTENTION if targets == "attention" else [name.strip() for name in targets.split(",")]
        return tuple(layer for layer in self.linear if layer.name in names)


def of_config(config: Mapping[str, Any]) -> Shape | None:
    """The shape that a configuration describes; None for a family whose sizes are not found."""
    text = config.get("text_config") or config
    found = {size: next((text[name] for name in names if text.get(name)), 0) for size, names in NAMES.items()}
    found["inner"] = found["inner"] or 4 * found["width"]
    if not all(isinstance(value, int) and value > 0 for value in found.values()):
        return None
    width, heads = found["width"], found["heads"]
    keys = int(
        (text.get("num_key_value_heads") or heads) * (text.get("head_dim") or text.get("d_kv") or width // heads)
    )
    both = bool(text.get("is_encoder_decoder"))
    rotary = any(name in text for name in ("rms_norm_eps", "rope_parameters", "rope_theta"))
    gated = rotary or "gated" in str(text.get("feed_forward_proj"))
    layers = found["layers"] + (_decoder_layers(text, found["layers"]) if both else 0)
    linear = _linear(width, heads, keys, found["inner"], layers, gated, text)
    vocabulary = int(text.get("vocab_size") or 0)
    tied = text.get("tie_word_embeddings", True)
    parameters = sum(one.inputs * one.outputs * one.count for one in linear) + vocabulary * width * (1 if tied else 2)
    return Shape(width, layers, heads, keys, found["inner"], vocabulary, gated, both, linear, parameters,
                 stored=parameters * 2, window=_window(text))  # fmt: skip


def of_model(model: Model) -> Shape | None:
    """The shape of a base on this disk, its layers as its files have them; raises `ModelError` for damaged ones."""
    shape = of_config(model.config)
    return _with_files(shape, model.path) if shape else None


@lru_cache(maxsize=64)
def _with_files(shape: Shape, folder: Path) -> Shape:
    counts: dict[tuple[str, int, int], int] = {}
    parameters = 0
    for tensor in weights.tensors(folder):
        parameters += prod(tensor.shape)
        path, _, last = tensor.name.rpartition(".")
        if len(tensor.shape) == 2 and last == "weight" and not NOT_ADAPTED.search(path):
            key = (path.rpartition(".")[2], tensor.shape[1], tensor.shape[0])
            counts[key] = counts.get(key, 0) + 1
    linear = tuple(Linear(*key, count) for key, count in counts.items())
    stored = sum(path.stat().st_size for path in weights.weight_files(folder))
    return replace(shape, linear=linear or shape.linear, parameters=parameters or shape.parameters, stored=stored)


def _linear(width: int, heads: int, keys: int, inner: int, layers: int, gated: bool,
            text: Mapping[str, Any]) -> tuple[Linear, ...]:  # fmt: skip
    """The layers of a transformer of these sizes."""
    queries = int(heads * (text.get("head_dim") or text.get("d_kv") or width // heads))
    decoder = _decoder_layers(text, layers // 2) if text.get("is_encoder_decoder") else 0
    attentions = layers + decoder  # a decoder's layers look at the encoder besides
    return (
        Linear("q_proj", width, queries, attentions), Linear("k_proj", width, keys, attentions),
        Linear("v_proj", width, keys, attentions), Linear("o_proj", queries, width, attentions),
        Linear("up_proj", width, inner, layers * (2 if gated else 1)), Linear("down_proj", inner, width, layers),
    )  # fmt: skip


def _decoder_layers(text: Mapping[str, Any], otherwise: int) -> int:
    return int(text.get("decoder_layers") or text.get("num_decoder_layers") or otherwise)


def _window(text: Mapping[str, Any]) -> int:
    known = [text[name] for name in ("max_position_embeddings", "n_positions") if isinstance(text.get(name), int)]
    offset = 2 if text.get("model_type") in ("roberta", "xlm-roberta", "camembert") else 0
    return min(known, default=2048) - offset


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
