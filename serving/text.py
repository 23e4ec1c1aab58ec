"""Generation: text that streams from a causal or an encoder-decoder base, with one version, until it ends or is cut."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from errors import GraftError, InputError
from serving.resident import Resident
from serving.sampling import Sampling
from serving.slots import Slot
from store.prompts import Message, as_messages, as_text, encode, neutralize

AT_ONCE = 4
"""Generations that run at the same time on one base; more wait their turn."""
LONGEST_PROMPT = 4096
"""Tokens of prompt, whatever the base's window: beyond it a CPU would take minutes to say its first word."""


class Generator:
    """Everything about text that can be asked of one resident base; calls may come from many threads."""

    def __init__(self, resident: Resident) -> None:
        self._resident = resident
        self._turns = threading.Semaphore(AT_ONCE)

    def generate(
        self, text: str, prompt: str, sampling: Sampling, slot: Slot | None, notes: list[str]
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
        yield from self._stream(ids, sampling, slot)

    def chat(
        self, messages: Sequence[Message], sampling: Sampling, slot: Slot | None, notes: list[str]
    ) -> Iterator[str]:
        """The next turn of a conversation, growing; the oldest turns are left out when it is too long."""
        room = self._room(sampling)
        system = [m for m in messages if m["role"] == "system"]
        turns = [m for m in messages if m["role"] != "system"]
        left_out = 0
        while len(ids := self._chat_ids([*system, *turns])) > room and len(turns) > 1:
            turns, left_out = turns[1:], left_out + 1
        if left_out:
            notes.append(f"The conversation is long; the oldest {left_out} messages were left out.")
        if len(ids) > room:
            notes.append(f"The message has {len(ids):,} tokens; the last {room:,} were read.")
        yield from self._stream(ids[-room:], sampling, slot)

    def _room(self, sampling: Sampling) -> int:
        room = min(self._resident.window, LONGEST_PROMPT) - sampling.max_new_tokens
        if room < 16:
            raise InputError(
                f"An answer of {sampling.max_new_tokens} tokens leaves no room for the question.",
                f"{self._resident.model.id} reads and writes {self._resident.window} tokens in all.",
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

    def _stream(self, ids: list[int], sampling: Sampling, slot: Slot | None) -> Iterator[str]:
        """Run `generate` in a thread of its own, whose slot is the request's; yields the text so far."""
        streamer = TextIteratorStreamer(
            self._resident.tokenizer,
            skip_prompt=not self._resident.config.is_encoder_decoder,
            skip_special_tokens=True,
        )
        stopped, failures = threading.Event(), list[BaseException]()
        worker = threading.Thread(
            target=self._run,
            args=(ids, sampling, slot, streamer, stopped, failures),
            name="graft-generate",
            daemon=True,
        )
        worker.start()
        text = ""
        try:
            for piece in streamer:
                if piece:
                    text += piece
                    yield text
        finally:
            stopped.set()
            worker.join()
        if failures:
            raise failures[0]
        if not text:
            yield text

    def _run(
        self,
        ids: list[int],
        sampling: Sampling,
        slot: Slot | None,
        streamer: TextIteratorStreamer,
        stopped: threading.Event,
        failures: list[BaseException],
    ) -> None:
        stop = StoppingCriteriaList([_Stopped(stopped)])
        try:
            inputs = torch.tensor([ids], device=self._resident.device)
            with self._turns, self._resident.using(slot), torch.inference_mode():
                if not stopped.is_set():
                    self._resident.net.generate(
                        inputs,
                        attention_mask=torch.ones_like(inputs),
                        streamer=streamer,
                        stopping_criteria=stop,
                        pad_token_id=self._resident.tokenizer.pad_token_id,
                        **sampling.arguments(),
                    )
        except BaseException as error:
            failures.append(error if isinstance(error, GraftError) else _failure(error))
        finally:
            streamer.end()


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    """Ends a generation at the next token once nobody reads it any more."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        return torch.full((input_ids.shape[0],), self._stopped.is_set(), device=input_ids.device)


def _failure(error: BaseException) -> BaseException:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return GraftError("There was not enough memory for this answer.", "", "Ask for a shorter one, or try later.")
    return error
