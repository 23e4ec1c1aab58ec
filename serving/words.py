"""Tokens into text as they come, without decoding the whole again for each."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

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
