"""Differences between two answers, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from models.chat_template import as_text

PIECES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+|\s+|.", re.DOTALL)
"""Words, spaces and signs; Chinese and Japanese by character."""
MOST_PIECES = 4_000
"""Most pieces of a text that is compared: the time grows with the square."""


def changes(was: str, now: str) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether equal, old text, new text) for each part of the way from one text to the other."""
    old, new = PIECES.findall(was), PIECES.findall(now)
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield kind == "equal", "".join(old[a:b]), "".join(new[c:d])


def plain_answer(outputs: Sequence[Any]) -> str | None:
    """The first output as one text: the likeliest label, the last turn of a conversation; None where it is none."""
    answer = outputs[0] if outputs else None
    if isinstance(answer, Mapping):
        return max(answer, key=answer.__getitem__, default=None)
    if isinstance(answer, list) and answer and isinstance(answer[-1], Mapping):
        return as_text(answer[-1].get("content"))
    return answer if isinstance(answer, str) else None


def marked(was: str, now: str) -> list[tuple[str, str]]:
    """Return the way from one answer to the other as (kept, gone or come, text) pieces; empty for equal texts."""
    if was == now:
        return []
    if max(len(PIECES.findall(text)) for text in (was, now)) > MOST_PIECES:
        return [("come", now)]
    found = list[tuple[str, str]]()
    for same, old, new in changes(was, now):
        found += [("kept", old)] if same else [(kind, text) for kind, text in (("gone", old), ("come", new)) if text]
    return found
