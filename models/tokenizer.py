"""Load a base's tokenizer and find the length of its inputs. Imports transformers, but needs no torch."""

from __future__ import annotations

import math

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from errors import ModelError
from models.resolve import Model
from models.template_check import check_templates


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """Load the base's tokenizer; one without a padding token in the base's vocabulary gets its end-of-text token.

    Raises `ModelError` for a tokenizer that cannot be loaded, and for a chat template that is not safe.
    """
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


def check_tokens(largest_id: int, vocabulary: int, model: Model) -> None:
    """Raise `ModelError` for a token id outside the base's vocabulary, which would break the process's use of a GPU.

    A tokenizer may have more tokens than its base; texts without those are answered as usual.
    """
    if largest_id >= vocabulary:
        raise ModelError(
            f"{model.id} cannot read this text.",
            f"Its tokenizer makes token {largest_id:,} of it, and the base has tokens 0 to {vocabulary - 1:,}.",
            "Choose a base whose tokenizer is its own.",
        )


def window(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest input in tokens that a base takes."""
    text = config.get_text_config()
    limits = [getattr(text, name, None) for name in ("max_position_embeddings", "n_positions")]
    known = [n for n in (*limits, tokenizer.model_max_length) if n and n < 1_000_000]
    # RoBERTa counts its positions from padding_idx + 1, so two of them are never used.
    offset = 2 if config.model_type in ("roberta", "xlm-roberta", "camembert") else 0
    return min(known, default=2048) - offset


def first_line(error: Exception) -> str:
    """Return the first line of a library's message, or the error's name."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
