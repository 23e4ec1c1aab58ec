"""Render conversations by a chat template, tokenize and truncate them, the same way for training and for answers.

The text of a special token inside a message (`<|im_end|>`, say) is broken up by a space, so that no row can begin or
end a turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from errors import InputError, Text

Message = Mapping[str, Any]
Span = tuple[int, int]
"""Start and end (exclusive) of a run of characters or tokens."""

PLAIN_TEMPLATE = (
    "{{ begins }}{% for message in messages %}{{ message['role'].capitalize() }}:\n{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token or '' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""Template of bases that come without one (GPT-2, say).

An answer begins on a new line: after a space, some words would be one token with it, and the prompt's tokens would
differ from those in training. Jinja drops a bare line end that follows a tag.
"""


def as_text(content: Any) -> str:  # noqa: ANN401 - a string, or a list of parts as chat pages send them
    """Return the text of a message's content."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Sequence) else [content]
    return "".join(str(part.get("text", "")) if isinstance(part, Mapping) else str(part) for part in parts)


def as_messages(text: str, prompt: str, target: str | None = None) -> list[dict[str, str]]:
    """Return a row of `text` and `target` as a conversation of one turn, with `prompt` around the text."""
    user = prompt.replace("{text}", text) if prompt else text
    messages = [{"role": "user", "content": user}]
    return messages if target is None else [*messages, {"role": "assistant", "content": target}]


def render(tokenizer: Any, messages: Sequence[Message], answer_next: bool) -> tuple[str, list[Span]]:  # noqa: ANN401
    """Render a conversation by the chat template; returns the text and the spans of the assistant's contents in it.

    Raises `InputError` where the template refuses or leaves out a message.
    """
    contents = neutralize_all(tokenizer, [as_text(m["content"]).strip() for m in messages])
    turns = [{"role": str(m["role"]), "content": text} for m, text in zip(messages, contents, strict=True)]
    marked = [{**turn, "content": f"\x02{i}\x02"} for i, turn in enumerate(turns)]
    template = None if tokenizer.chat_template else PLAIN_TEMPLATE
    try:
        rest = str(
            tokenizer.apply_chat_template(
                marked,
                tokenize=False,
                add_generation_prompt=answer_next,
                chat_template=template,
                begins=_begins(tokenizer) if template else "",
            )
        )
    except TemplateError as error:
        raise InputError(
            "The conversation cannot be put to this model.",
            Text("Its chat template says: {error}.", error=str(error)[:200]),
            "Change the order or the roles of its messages, or choose another base.",
        ) from error
    text, spans = "", []
    for i, turn in enumerate(turns):
        before, found, rest = rest.partition(f"\x02{i}\x02")
        if not found:
            raise InputError(
                "The conversation cannot be put to this model.",
                Text("Its chat template leaves out the {role} message number {n}.", role=turn["role"], n=i + 1),
                "Remove that message, or choose another base.",
            )
        start = len(text) + len(before)
        text += before + turn["content"]
        if turn["role"] == "assistant":
            spans.append((start, len(text)))
    return text + rest, spans


def encode(tokenizer: Any, messages: Sequence[Message], answer_next: bool = False) -> tuple[list[int], list[Span]]:  # noqa: ANN401
    """Return the token ids of a conversation, and the spans of the labels: the assistant's words and turn ends."""
    [encoded] = encode_batch(tokenizer, [messages], answer_next)
    return encoded


def encode_batch(
    tokenizer: Any,  # noqa: ANN401
    conversations: Sequence[Sequence[Message]],
    answer_next: bool = False,
) -> list[tuple[list[int], list[Span]]]:
    """Encode several conversations as `encode` does, in one call of the tokenizer."""
    rendered = [render(tokenizer, messages, answer_next) for messages in conversations]
    texts = [text for text, _ in rendered]
    unused = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    encoded = tokenizer(texts, return_offsets_mapping=True, **unused)
    offsets = (np.array(some, np.int32).reshape(-1, 2) for some in encoded["offset_mapping"])
    spans = (_label_spans(some, contents) for some, (_, contents) in zip(offsets, rendered, strict=True))
    return list(zip(encoded["input_ids"], spans, strict=True))


def _label_spans(offsets: NDArray[np.int32], contents: Sequence[Span]) -> list[Span]:
    """Return spans of the tokens that overlap the characters of `contents`, with the first token after each."""
    starts, ends = offsets.T
    labelled = np.zeros(len(offsets) + 2, bool)
    for first, last in contents:
        labelled[1:-1] |= (starts < last) & (ends > first)
        after = (starts >= last) & (ends > starts)
        if after.any():
            labelled[1 + after.argmax()] = True
    edges = np.flatnonzero(labelled[1:] != labelled[:-1]).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def _begins(tokenizer: Any) -> str:  # noqa: ANN401
    """Return the beginning-of-text token if the tokenizer puts it before a text, else ""."""
    first = tokenizer("a")["input_ids"][0]
    return str(tokenizer.bos_token) if first == tokenizer.bos_token_id and tokenizer.bos_token else ""


def neutralize(tokenizer: Any, text: str) -> str:  # noqa: ANN401
    """Break up the text of every special token by a space after its first character."""
    return neutralize_all(tokenizer, [text])[0]


def neutralize_all(tokenizer: Any, texts: Sequence[str]) -> list[str]:  # noqa: ANN401
    """Do as `neutralize` for several texts."""
    # Not `all_special_tokens`, which leaves out those without a role: Llama's <|eot_id|>, for example.
    special = {str(added) for added in tokenizer.added_tokens_decoder.values() if added.special and len(str(added)) > 1}
    return [_break_up(text, special) for text in texts]


def _break_up(text: str, tokens: Iterable[str]) -> str:
    # Those in the text as it came: breaking one up may make another.
    for token in [token for token in tokens if token in text]:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


@dataclass(frozen=True)
class TokenizedText:
    """A text as a base reads it, truncated to a limit."""

    inputs: Mapping[str, list[int]]
    """Token ids, and whatever else the tokenizer gives for each token."""
    tokens: int
    """Number of tokens before truncation."""

    @property
    def read(self) -> int:
        """Number of tokens after truncation."""
        return len(self.inputs["input_ids"])


def truncate(tokenizer: Any, texts: Sequence[str], longest: int) -> list[TokenizedText]:  # noqa: ANN401
    """Tokenize texts, special tokens in them broken up, and truncate each to `longest` tokens.

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
    """Cut `excess` tokens and two more off the end of each text, which stands inside a prompt.

    Returns (shorter text, its tokens before, its tokens now). The two are for U+FFFD in place of half a character.
    """
    tokens = tokenizer(neutralize_all(tokenizer, texts), add_special_tokens=False)["input_ids"]
    kept = [max(0, len(ids) - over - 2) for ids, over in zip(tokens, excess, strict=True)]
    return [(tokenizer.decode(ids[:n]), len(ids), n) for ids, n in zip(tokens, kept, strict=True)]


def truncation_note(tokens: int, read: int) -> Text:
    """Return the note that only the first `read` tokens of a text were read."""
    return Text("The text has {n} tokens; the first {read} were read.", n=f"{tokens:,}", read=f"{read:,}")
