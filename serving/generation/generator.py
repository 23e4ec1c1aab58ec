"""Generation: text that streams from a causal or an encoder-decoder base, with one version, until it ends or is cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

from transformers import PreTrainedTokenizerBase

from errors import InputError
from models.chat_template import Message, as_messages, as_text, encode, neutralize
from serving.base.base_model import Resident
from serving.base.slots import Slot
from serving.generation.continuous import Decoding
from serving.generation.request import DEADLINE_S, Request
from serving.generation.sampling import Place, Sampling
from serving.generation.static import Generating

UNFINISHED = "\ufffd"
"""What a tokenizer writes for the bytes of a character that is not whole yet."""


class Words:
    """The text of a growing list of tokens. Two of its ends are decoded: how a token is written depends on the last."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._from = self._to = 0
        self.text = ""

    def add(self, ids: Sequence[int], last: bool = False) -> bool:
        """Take further tokens; whether the text has grown. Half a character waits for its other half unless `last`."""
        self._ids += ids
        before = self._decode(self._ids[self._from : self._to])
        now = self._decode(self._ids[self._from :])
        if len(now) <= len(before) or (now.endswith(UNFINISHED) and not last):
            return False
        self.text += now[len(before) :]
        self._from, self._to = self._to, len(self._ids)
        return True

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)) if ids else ""


LONGEST_PROMPT = 4096
"""Tokens of prompt, whatever the base's window: beyond it a CPU would take minutes to say its first word."""


class Generator:
    """Everything about text that can be asked of one resident base; calls may come from many threads."""

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._answers = _answers(resident)

    def generate(
        self,
        text: str,
        prompt: str,
        sampling: Sampling,
        slot: Slot | None,
        notes: list[str],
        place: Place | None = None,
    ) -> Iterator[str]:
        """The answer to `text` put through the tab's `prompt`, growing; long texts are cut and `notes` says so."""
        room = self._room(sampling)
        ids = self._text_ids(text, prompt)
        if len(ids) > room:
            overhead = len(self._text_ids("", prompt))
            tokens = self._resident.tokenizer(neutralize(self._resident.tokenizer, text), add_special_tokens=False)[
                "input_ids"
            ]
            kept = max(1, room - overhead - 8)
            notes.append(f"The text has {len(tokens):,} tokens; the first {kept:,} were read.")
            ids = self._text_ids(self._resident.tokenizer.decode(tokens[:kept]), prompt)
        yield from self._stream(ids, sampling, slot, notes, place)

    def chat(
        self,
        messages: Sequence[Message],
        sampling: Sampling,
        slot: Slot | None,
        notes: list[str],
        place: Place | None = None,
    ) -> Iterator[str]:
        """The next turn of a conversation, growing; the oldest turns are left out when it is too long."""
        room = self._room(sampling)
        system = [m for m in messages if m["role"] == "system"]
        turns = [m for m in messages if m["role"] != "system"]
        left_out = 0
        while len(ids := self._chat_ids([*system, *turns])) > room and len(turns) > 1:
            turns, left_out = turns[1:], left_out + 1
        if left_out:
            notes.append(f"The conversation is long; the oldest {left_out:,} messages were left out.")
        if len(ids) > room:
            notes.append(f"The message has {len(ids):,} tokens; the last {room:,} were read.")
        yield from self._stream(ids[-room:], sampling, slot, notes, place)

    def _room(self, sampling: Sampling) -> int:
        room = min(self._resident.window - sampling.max_new_tokens, LONGEST_PROMPT)
        if room < 16:
            raise InputError(
                f"An answer of {sampling.max_new_tokens:,} tokens leaves no room for the question.",
                f"{self._resident.model.id} reads and writes {self._resident.window:,} tokens in all.",
                "Ask for a shorter answer.",
            )
        return room

    def _text_ids(self, text: str, prompt: str) -> list[int]:
        if self._resident.config.is_encoder_decoder:
            source = as_messages(text, prompt)[0]["content"]
            return list(self._resident.tokenizer(neutralize(self._resident.tokenizer, source))["input_ids"])
        return self._chat_ids(as_messages(text, prompt))

    def _chat_ids(self, messages: Sequence[Message]) -> list[int]:
        if self._resident.config.is_encoder_decoder:
            source = "\n".join(neutralize(self._resident.tokenizer, as_text(m["content"])) for m in messages)
            return list(self._resident.tokenizer(source)["input_ids"])
        return encode(self._resident.tokenizer, messages, answer_next=True)[0]

    def _stream(
        self, ids: list[int], sampling: Sampling, slot: Slot | None, notes: list[str], place: Place | None
    ) -> Iterator[str]:
        """The text so far, each time it has grown. Whoever stops reading stops what is written for him."""
        request = Request(ids, sampling, slot)
        if place:
            place.ask = lambda: self._answers.before(request)
        self._answers.submit(request)
        words, yielded = Words(self._resident.tokenizer), False
        with closing(request.tokens()) as news:
            for tokens in news:
                if words.add(tokens):
                    yield words.text
                    yielded = True
        if words.add((), last=True) or not yielded:
            yield words.text
        if request.late:
            notes.append(f"The answer was cut after {DEADLINE_S:.0f} seconds.")


def _answers(resident: Resident) -> Decoding | Generating:
    """Continuous batching where the base is seen to answer the same so, and `generate` elsewhere."""
    if not resident.config.is_encoder_decoder and resident.net.can_generate() and resident.mixes:
        decoding = Decoding(resident)
        if decoding.proven():
            return decoding
    return Generating(resident)
