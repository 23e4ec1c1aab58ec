"""A base's tokenizer, and how much of a text the base takes. Imports transformers, but needs no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from errors import ModelError, Text
from models.chat_template import neutralize_all
from models.resolve import Model
from models.template_check import check_templates


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """The base's tokenizer, with a padding token (the end-of-text token where it has none that the base has, too)."""
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model.path, trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"The tokenizer of {model.id} cannot be loaded.", first_line(error)) from error
    check_templates(tokenizer.chat_template, model.id)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id >= model.config.get("vocab_size", math.inf):
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def check_tokens(largest: int, vocabulary: int, model: Model) -> None:
    """Raise `ModelError` for a token that the base does not have: looking one up ends all of a process's use of a GPU.

    Tokens are added to a tokenizer more often than to its base, and texts without them are answered as ever.
    """
    if largest >= vocabulary:
        raise ModelError(
            f"{model.id} cannot read this text.",
            f"Its tokenizer makes token {largest:,} of it, and the base has tokens 0 to {vocabulary - 1:,}.",
            "Choose a base whose tokenizer is its own.",
        )


def window(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """The longest input in tokens that a base takes."""
    text = config.get_text_config()
    limits = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions")]
    known = [n for n in (*limits, tokenizer.model_max_length) if n and n < 1_000_000]
    # RoBERTa counts its positions from padding_idx + 1, so two of them are never used.
    offset = 2 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return min(known, default=2048) - offset


@dataclass(frozen=True)
class TokenizedText:
    """A text as a base reads it, truncated to a limit."""

    inputs: Mapping[str, list[int]]
    """Token ids, and whatever else the tokenizer gives for each token."""
    tokens: int
    """Number of tokens before truncation."""


def truncate(tokenizer: Any, texts: Sequence[str], longest: int) -> list[TokenizedText]:  # noqa: ANN401
    """Tokenize texts that stand alone, special tokens in them broken up, and truncate each to `longest` tokens.

    The special tokens that the tokenizer puts around a text are kept. The tokenizer's own truncation is not used: it is
    a state of the tokenizer, which other threads read.
    """
    batch = tokenizer(neutralize_all(tokenizer, texts), return_special_tokens_mask=True)
    masks, side = batch.pop("special_tokens_mask"), tokenizer.truncation_side
    return [
        TokenizedText({key: _truncate(rows[i], mask, longest, side) for key, rows in batch.items()}, len(mask))
        for i, mask in enumerate(masks)
    ]


def _truncate(values: list[int], special: list[int], longest: int, side: str) -> list[int]:
    excess = len(values) - longest
    if excess <= 0:
        return values
    first, last = special.index(0), len(special) - special[::-1].index(0)
    text = values[first : last - excess] if side == "right" else values[first + excess : last]
    return values[:first] + text + values[last:]


def shorten(tokenizer: Any, texts: Sequence[str], excess: Sequence[int]) -> list[tuple[str, int, int]]:  # noqa: ANN401
    """Cut tokens off the end of texts that stand inside a prompt, `excess` tokens too long with each.

    Returns (shorter text, its tokens before, its tokens now). Two more tokens are cut: a character that is cut in half
    is decoded as U+FFFD, which takes up to two more.
    """
    tokens = tokenizer(neutralize_all(tokenizer, texts), add_special_tokens=False)["input_ids"]
    kept = [max(0, len(ids) - over - 2) for ids, over in zip(tokens, excess, strict=True)]
    return [(tokenizer.decode(ids[:n]), len(ids), n) for ids, n in zip(tokens, kept, strict=True)]


def truncation_note(tokens: int, read: int) -> Text:
    """Return the note that only the first `read` tokens of a text were read."""
    return Text("The text has {n} tokens; the first {read} were read.", n=f"{tokens:,}", read=f"{read:,}")


def first_line(error: Exception) -> str:
    """The first line of a library's message, or the error's name."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
