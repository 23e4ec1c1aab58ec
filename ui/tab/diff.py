"""Differences between two answers, word by word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

PIECES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+|\s+|.", re.DOTALL)
"""Words, spaces and signs; Chinese and Japanese by character."""
MOST_PIECES = 4_000
"""Most pieces of a text that is compared: the time grows with the square."""


def changes(was: str, now: str) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether equal, old text, new text) for each part of the way from one text to the other."""
    old, new = PIECES.findall(was), PIECES.findall(now)
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield kind == "equal", "".join(old[a:b]), "".join(new[c:d])


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
