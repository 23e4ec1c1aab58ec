"""Text generation: requests from texts and conversations, and their answers as streams of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from transformers import PreTrainedTokenizerBase

from errors import InputError, Text
from models.chat_template import Message, as_messages, as_text, encode, neutralize, shorten, truncation_note
from serving.base.base_model import BaseModel
from serving.base.slots import Slot
from serving.generation.continuous import ContinuousBatching
from serving.generation.request_queue import DEADLINE_S, Request
from serving.generation.sampling import SamplingParams
from serving.generation.static import StaticBatching

LONGEST_PROMPT = 4096
"""Longest prompt in tokens, whatever the window: a longer one takes a CPU minutes before the first token."""
SHORTEST_PROMPT = 16
"""Tokens of the window that must remain for the prompt."""
UNFINISHED = "\ufffd"
"""Text that the bytes of an incomplete character are decoded to."""


class Detokenizer:
    """Decodes a growing list of tokens; an incomplete character is withheld until its last token.

    Only the newest tokens are decoded, with those before them, which decide about spaces. `tokenizers.DecodeStream`
    does the same, but raises for invalid bytes in a sampled answer where the tokenizer falls back to bytes (Llama 2,
    Mistral, Gemma), and supports no tokenizer written in Python.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context = self._done = 0
        """Index of the first token to decode, and number of tokens decoded into `text`."""
        self.text = ""

    def add(self, ids: Sequence[int], last: bool = False) -> bool:
        """Append tokens; returns whether the text has grown. `last` decodes an incomplete character too."""
        self._ids += ids
        before = self._decode(self._ids[self._context : self._done])
        now = self._decode(self._ids[self._context :])
        if len(now) <= len(before) or (now.endswith(UNFINISHED) and not last):
            return False
        self.text += now[len(before) :]
        self._context, self._done = self._done, len(self._ids)
        return True

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""


class Generator:
    """Generates text with one base model; calls may come from many threads."""

    params = SamplingParams
    """Class of the options, for callers that must not import torch."""

    def __init__(self, base: BaseModel) -> None:
        self._base = base
        self.batching = _batching(base)
        self.queue = self.batching.queue

    def text_request(self, text: str, prompt: str, params: SamplingParams, slot: Slot | None) -> Request:
        """Make the request for an answer to `text` in the tab's `prompt`; a long text is truncated.

        Raises `InputError` if the answer leaves no room for the prompt.
        """
        limit = self._prompt_limit(params)
        request = Request(self._text_ids(text, prompt), params, slot)
        excess = len(request.ids) - limit
        if excess > 0:
            [(text, tokens, read)] = shorten(self._base.tokenizer, [text], [excess])
            request.notes.append(truncation_note(tokens, read))
            request.ids = self._text_ids(text, prompt)[-limit:]
        return request

    def chat_request(self, messages: Sequence[Message], params: SamplingParams, slot: Slot | None) -> Request:
        """Make the request for the next turn of a conversation, without its oldest turns if it is long."""
        limit = self._prompt_limit(params)
        system = [m for m in messages if m["role"] == "system"]
        turns = [m for m in messages if m["role"] != "system"]
        left_out = 0
        while len(ids := self._chat_ids([*system, *turns])) > limit and len(turns) > 1:
            turns, left_out = turns[1:], left_out + 1
        request = Request(ids[-limit:], params, slot)
        if left_out:
            template = "The conversation is long; the oldest {n} messages were left out."
            request.notes.append(Text(template, n=f"{left_out:,}"))
        if len(ids) > limit:
            template = "The message has {n} tokens; the last {read} were read."
            request.notes.append(Text(template, n=f"{len(ids):,}", read=f"{limit:,}"))
        return request

    def stream(self, request: Request) -> Iterator[str]:
        """Yield the answer each time it has grown; closing the iterator cancels the request.

        Raises `BusyError` if too many requests wait, and `ModelError` for tokens the base lacks.
        """
        self._base.check_tokens(request.ids)
        self.queue.put(request)
        answer, yielded = Detokenizer(self._base.tokenizer), False
        with closing(request.tokens()) as tokens:
            for some in tokens:
                if answer.add(some):
                    yield answer.text
                    yielded = True
        if request.late:
            request.notes.append(Text("The answer was cut after {n} seconds.", n=f"{DEADLINE_S:.0f}"))
        if answer.add((), last=True) or request.late or not yielded:
            yield answer.text

    def _prompt_limit(self, params: SamplingParams) -> int:
        limit = min(self._base.window - int(params.max_new_tokens), LONGEST_PROMPT)
        if limit < SHORTEST_PROMPT:
            what = Text("An answer of {n} tokens leaves no room for the question.", n=f"{params.max_new_tokens:,}")
            name, window = self._base.model.id, f"{self._base.window:,}"
            why = Text("{base} reads and writes {n} tokens in all.", base=name, n=window)
            raise InputError(what, why, "Ask for a shorter answer.")
        return limit

    def _text_ids(self, text: str, prompt: str) -> list[int]:
        return self._chat_ids(as_messages(text, prompt))

    def _chat_ids(self, messages: Sequence[Message]) -> list[int]:
        tokenizer = self._base.tokenizer
        if self._base.config.is_encoder_decoder:
            source = "\n".join(neutralize(tokenizer, as_text(m["content"])) for m in messages)
            return list(tokenizer(source)["input_ids"])
        return encode(tokenizer, messages, answer_next=True)[0]


def _batching(base: BaseModel) -> ContinuousBatching | StaticBatching:
    """Return continuous batching if the base passes its self-check, else static batching."""
    if not base.config.is_encoder_decoder and base.net.can_generate() and base.mixes:
        continuous = ContinuousBatching(base)
        if continuous.self_check():
            return continuous
    return StaticBatching(base)
