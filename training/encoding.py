"""Rows as token ids, one function for each kind of task; the answer alone is learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store.prompts import as_messages, as_text, encode, neutralize
from training.config import TrainConfig
from training.data import Row

IGNORED = -100
"""The label of a position that no loss is computed for, in every transformers model."""

Example = dict[str, Any]


@dataclass(frozen=True)
class Encoded:
    """Rows as a model takes them. `kept` are the rows that have something to learn, in order, one an example."""

    examples: list[Example]
    kept: list[Row]
    truncated: int
    """Rows that were cut to the longest length."""


def encode_rows(rows: Sequence[Row], tokenizer: Any, config: TrainConfig, labels: Sequence[str], task: str) -> Encoded:  # noqa: ANN401
    """Encode `rows` for `task`; rows whose answer does not survive the cut to `max_length` whole are left out."""
    encoder = ENCODERS[task]
    examples, kept, truncated = [], [], 0
    for row in rows:
        example, cut = encoder(row, tokenizer, config, labels)
        truncated += cut
        if example:
            examples.append(example)
            kept.append(row)
    return Encoded(examples, kept, truncated)


def conversation(row: Row, prompt: str) -> list[dict[str, str]]:
    """A row of either kind as chat messages, the answer last."""
    if "messages" in row:
        return [{"role": m["role"], "content": as_text(m["content"])} for m in row["messages"]]
    return as_messages(row["text"], prompt, row["target"])


def source_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """What an encoder-decoder reads of a conversation: everything before the answer."""
    return "\n".join(as_text(m["content"]) for m in messages[:-1])


def _label(row: Row, tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> tuple[Example | None, bool]:  # noqa: ANN401
    ids, cut = _cut(row["text"], tokenizer, config.max_length)
    return {"input_ids": ids, "labels": labels.index(row["target"])}, cut


def _causal(row: Row, tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> tuple[Example | None, bool]:  # noqa: ANN401
    ids, learned = encode(tokenizer, conversation(row, config.prompt))
    excess = len(ids) - config.max_length
    if excess > 0 and "text" in row:
        # The text is cut, not the answer: the same end of the text that is cut when answering.
        tokens = tokenizer(neutralize(tokenizer, row["text"]), add_special_tokens=False)["input_ids"]
        shorter = tokenizer.decode(tokens[: max(0, len(tokens) - excess - 2)])
        ids, learned = encode(tokenizer, conversation({**row, "text": shorter}, config.prompt))
    if last_answer(learned) <= max(0, len(ids) - config.max_length):
        return None, True
    ids, learned = ids[-config.max_length :], learned[-config.max_length :]
    return {"input_ids": ids, "labels": [t if m else IGNORED for t, m in zip(ids, learned, strict=True)]}, excess > 0


def _seq2seq(row: Row, tokenizer: Any, config: TrainConfig, labels: Sequence[str]) -> tuple[Example | None, bool]:  # noqa: ANN401
    messages = conversation(row, config.prompt)
    source, cut = _cut(source_text(messages), tokenizer, config.max_length)
    target = tokenizer(text_target=neutralize(tokenizer, messages[-1]["content"]))["input_ids"]
    if len(target) > config.max_length:
        return None, True
    return {"input_ids": source, "labels": target}, cut


def _cut(text: str, tokenizer: Any, longest: int) -> tuple[list[int], bool]:  # noqa: ANN401
    """Token ids of a text that stands alone, at most `longest`, and whether it has more."""
    text = neutralize(tokenizer, text)
    ids = tokenizer(text, truncation=True, max_length=longest)["input_ids"]
    return ids, len(ids) == longest and len(tokenizer(text)["input_ids"]) > longest


def last_answer(learned: Sequence[bool]) -> int:
    """Where the last answer begins: the first of the last learned tokens in a row; 0 where nothing is learned."""
    end = next((i + 1 for i in reversed(range(len(learned))) if learned[i]), 0)
    return next((i + 1 for i in reversed(range(end)) if not learned[i]), 0)


ENCODERS: Mapping[str, Callable[[Row, Any, TrainConfig, Sequence[str]], tuple[Example | None, bool]]] = {
    "text-classification": _label,
    "causal-lm": _causal,
    "seq2seq-lm": _seq2seq,
}
