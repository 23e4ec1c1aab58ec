"""Sizes of bases, from `config.json` and the headers of their weights, and a table of recommended bases; no torch.

Families of models name the same sizes differently. A base that uses none of the known names has no `Shape`, and runs
on it are not estimated.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import prod
from pathlib import Path
from typing import Any, Literal

from errors import GraftError
from models import weights
from models.resolve import Model, ModelStore

NAMES: Mapping[str, Sequence[str]] = {
    "width": ("hidden_size", "n_embd", "d_model", "dim"),
    "heads": ("num_attention_heads", "n_head", "encoder_attention_heads", "num_heads", "n_heads"),
    "inner": ("intermediate_size", "n_inner", "d_ff", "encoder_ffn_dim", "hidden_dim"),
    "layers": ("num_hidden_layers", "n_layer", "encoder_layers", "num_layers", "n_layers"),
}
"""Keys of `config.json` for each size, over all families."""
NOT_ADAPTED = re.compile(
    r"embed|\bwte\b|\bwpe\b|\bshared\b|relative_attention_bias|lm_head|classifier|\bscore\b|\bcls\b|pre_classifier"
)
"""Matrices without LoRA: embeddings, the output layer, heads."""
ATTENTION = re.compile(r"[qkvo]|(q|k|v|o|out|qkv)_proj|query|key|value|(q|k|v|out)_lin|c_attn")
"""Names of the layers that `targets="attention"` selects."""


def selects(targets: str, path: str) -> bool:
    """Return whether `targets` (all-linear, attention, or names and ends of paths) selects the layer at `path`."""
    if targets in ("all-linear", "attention"):
        return targets == "all-linear" or ATTENTION.fullmatch(path.rpartition(".")[2]) is not None
    return any(path == name or path.endswith(f".{name}") for name in (n.strip() for n in targets.split(",")))


@dataclass(frozen=True)
class LinearLayers:
    """Linear layers of the body that share a name and a size."""

    name: str
    """The last part of their path, such as q_proj."""
    inputs: int
    outputs: int
    count: int = 1


@dataclass(frozen=True)
class Shape:
    """Sizes of one base."""

    width: int
    layers: int
    """Layers; of an encoder-decoder, both its parts."""
    heads: int
    keys: int
    """Width of the keys of all heads together, which is that of the values."""
    inner: int
    """Width of the feed-forward part."""
    vocabulary: int
    gated: bool
    """True for gated feed-forward parts, which go with rotary positions and root-mean-square norms."""
    encoder_decoder: bool
    linear: tuple[LinearLayers, ...]
    parameters: int
    stored: int
    """Bytes of the weight files."""
    window: int
    """Tokens that fit into one input."""

    @property
    def multiplied(self) -> int:
        """Parameters of the body's linear layers."""
        return sum(layer.inputs * layer.outputs * layer.count for layer in self.linear)

    def chosen(self, targets: str) -> tuple[LinearLayers, ...]:
        """Return the layers that the hyperparameter `targets` selects."""
        return tuple(layer for layer in self.linear if selects(targets, layer.name))


def shape_from_config(config: Mapping[str, Any]) -> Shape | None:
    """Return the shape that a `config.json` describes, or None for a family with other names."""
    text = config.get("text_config") or config
    found = {size: next((text[name] for name in names if text.get(name)), 0) for size, names in NAMES.items()}
    found["inner"] = found["inner"] or 4 * found["width"]
    if not all(isinstance(value, int) and value > 0 for value in found.values()):
        return None
    decoder = text.get("decoder_layers") or text.get("num_decoder_layers") or found["layers"]
    rotary = any(name in text for name in ("rms_norm_eps", "rope_parameters", "rope_theta"))
    return _shape(
        **found,
        vocabulary=int(text.get("vocab_size") or 0),
        window=_window(text),
        keys=int(text.get("num_key_value_heads") or 0),
        head=int(text.get("head_dim") or text.get("d_kv") or 0),
        gated=rotary or "gated" in str(text.get("feed_forward_proj")),
        decoder=int(decoder) if text.get("is_encoder_decoder") else 0,
        tied=bool(text.get("tie_word_embeddings", True)),
    )


def _window(text: Mapping[str, Any]) -> int:
    known = [text[name] for name in ("max_position_embeddings", "n_positions") if isinstance(text.get(name), int)]
    offset = 2 if text.get("model_type") in ("roberta", "xlm-roberta", "camembert") else 0
    return min(known, default=2048) - offset


def _shape(
    width: int,
    layers: int,
    heads: int,
    inner: int,
    vocabulary: int,
    window: int,
    keys: int = 0,
    head: int = 0,
    gated: bool = False,
    decoder: int = 0,
    tied: bool = True,
) -> Shape:
    """Return the shape of a transformer of `layers` encoder (or sole) layers and `decoder` layers of a decoder.

    `keys` is the number of key heads (0: `heads`), and `head` the width of one (0: `width` / `heads`).
    """
    head = head or width // heads
    queries, keys = heads * head, (keys or heads) * head
    layers += decoder
    attentions = layers + decoder  # each layer of a decoder attends to the encoder, too
    linear = (
        LinearLayers("q_proj", width, queries, attentions),
        LinearLayers("k_proj", width, keys, attentions),
        LinearLayers("v_proj", width, keys, attentions),
        LinearLayers("o_proj", queries, width, attentions),
        LinearLayers("up_proj", width, inner, layers * (2 if gated else 1)),
        LinearLayers("down_proj", inner, width, layers),
    )
    parameters = sum(one.inputs * one.outputs * one.count for one in linear) + vocabulary * width * (1 if tied else 2)
    sizes = (width, layers, heads, keys, inner, vocabulary, gated, decoder > 0, linear, parameters)
    return Shape(*sizes, stored=2 * parameters, window=window)


def shape_from_files(model: Model) -> Shape | None:
    """Return the shape of a base on this disk, with the layers in its files; raises `ModelError` for damaged ones."""
    shape = shape_from_config(model.config)
    return _with_files(shape, model.path) if shape else None


@lru_cache(maxsize=64)
def _with_files(shape: Shape, folder: Path) -> Shape:
    counts, parameters = Counter[tuple[str, int, int]](), 0
    for tensor in weights.tensors(folder):
        parameters += prod(tensor.shape)
        path, _, last = tensor.name.rpartition(".")
        if len(tensor.shape) == 2 and last == "weight" and not NOT_ADAPTED.search(path):
            counts[path.rpartition(".")[2], tensor.shape[1], tensor.shape[0]] += 1
    linear = tuple(LinearLayers(*key, count) for key, count in counts.items())
    stored = sum(path.stat().st_size for path in weights.weight_files(folder))
    return replace(shape, linear=linear or shape.linear, parameters=parameters or shape.parameters, stored=stored)


@dataclass(frozen=True)
class Base:
    """A row of the table of recommended bases."""

    id: str
    answers: Literal["label", "text"]
    languages: Literal["en", "zh", "many"]
    licence: str
    shape: Shape

    @property
    def key(self) -> str:
        """The last part of the id, which is the key of texts about it."""
        return self.id.rpartition("/")[2]

    @property
    def why(self) -> str:
        """The reason to choose it."""
        return WHY[self.key]


_decoder = partial(_shape, gated=True)
AP, MIT, LLAMA = "Apache-2.0", "MIT", "Llama 3.2"
MINILM_MANY = "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2"
BASES: Sequence[Base] = (
    Base("sentence-transformers/all-MiniLM-L6-v2", "label", "en", AP, _shape(384, 6, 12, 1536, 30522, 512)),
    Base(MINILM_MANY, "label", "many", AP, _shape(384, 12, 12, 1536, 250037, 512)),
    Base("google-bert/bert-base-chinese", "label", "zh", AP, _shape(768, 12, 12, 3072, 21128, 512)),
    Base("FacebookAI/roberta-base", "label", "en", MIT, _shape(768, 12, 12, 3072, 50265, 514)),
    Base("answerdotai/ModernBERT-base", "label", "en", AP, _shape(768, 22, 12, 1728, 50368, 8192)),
    Base("FacebookAI/xlm-roberta-base", "label", "many", MIT, _shape(768, 12, 12, 3072, 250002, 514)),
    Base("HuggingFaceTB/SmolLM2-135M-Instruct", "text", "en", AP, _decoder(576, 30, 9, 1536, 49152, 8192, 3)),
    Base("HuggingFaceTB/SmolLM2-360M-Instruct", "text", "en", AP, _decoder(960, 32, 15, 2560, 49152, 8192, 5)),
    Base("Qwen/Qwen2.5-0.5B-Instruct", "text", "many", AP, _decoder(896, 24, 14, 4864, 151936, 32768, 2)),
    Base("Qwen/Qwen3-0.6B", "text", "many", AP, _decoder(1024, 28, 16, 3072, 151936, 40960, 8, head=128)),
    Base("Qwen/Qwen2.5-1.5B-Instruct", "text", "many", AP, _decoder(1536, 28, 12, 8960, 151936, 32768, 2)),
    Base("HuggingFaceTB/SmolLM2-1.7B-Instruct", "text", "en", AP, _decoder(2048, 24, 32, 8192, 49152, 8192, 32)),
    Base("meta-llama/Llama-3.2-1B-Instruct", "text", "many", LLAMA, _decoder(2048, 16, 32, 8192, 128256, 131072, 8)),
    Base("Qwen/Qwen2.5-7B-Instruct", "text", "many", AP, _decoder(3584, 28, 28, 18944, 152064, 32768, 4, tied=False)),
    Base("Qwen/Qwen3-8B", "text", "many", AP, _decoder(4096, 36, 32, 12288, 151936, 40960, 8, tied=False)),
    Base(
        "google/flan-t5-small", "text", "en", AP, _decoder(512, 8, 6, 1024, 32128, 512, head=64, decoder=8, tied=False)
    ),
)
"""Recommended bases, smaller ones of a kind first."""
WHY = {
    "all-MiniLM-L6-v2": "small and quick on two cores; also tells labels apart without training",
    "paraphrase-multilingual-MiniLM-L12-v2": "some fifty languages, Chinese among them, still small",
    "bert-base-chinese": "made for Chinese alone, and a tenth of the vocabulary of a multilingual one",
    "roberta-base": "more accurate on English than MiniLM, and about eight times the work",
    "ModernBERT-base": "for long English texts: up to 8,192 tokens",
    "xlm-roberta-base": "a hundred languages, where accuracy matters more than time",
    "SmolLM2-135M-Instruct": "runs on two cores; fluent, and often wrong",
    "SmolLM2-360M-Instruct": "better answers than the 135M for about three times the work",
    "Qwen2.5-0.5B-Instruct": "the smallest that writes good Chinese",
    "Qwen3-0.6B": "Chinese, English and many more; newer than Qwen2.5",
    "Qwen2.5-1.5B-Instruct": "much better Chinese and English; a GPU, or patience",
    "SmolLM2-1.7B-Instruct": "the best English of its family; a GPU, or patience",
    "Llama-3.2-1B-Instruct": "eight languages, Chinese not among them; its licence has to be accepted on the Hub",
    "Qwen2.5-7B-Instruct": "strong in Chinese and English; a GPU and 4bit",
    "Qwen3-8B": "the strongest of this table; a GPU of 16 GB or more and 4bit",
    "flan-t5-small": "for short answers and summaries; quick, and not for conversations",
}
"""The reason to choose each base, by its key."""


def find_shape(id: str, home: Path) -> tuple[Shape | None, bool]:
    """Return the shape of a base, from its files or else the table, and whether it is on this disk."""
    from_table = next((base.shape for base in BASES if base.id == id.partition("@")[0]), None)
    with suppress(GraftError):
        return shape_from_files(ModelStore(home / "models", offline=True).resolve(id)) or from_table, True
    return from_table, False
