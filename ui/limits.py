"""How much one request may say, and how much it may ask for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from errors import InputError
from serving.lm import check_new_tokens
from settings import Settings


def check(settings: Settings, given: Mapping[str, Any]) -> None:
    """Raise `InputError` for the arguments of a tab's `predict` where they are beyond the settings."""
    said = sum(len(text) for text in _texts(list(given.values())))
    if said > settings.text_length:
        why = f"It says {said:,} characters; the limit is {settings.text_length:,} (GRAFT_TEXT_LENGTH)."
        raise InputError("This is too long.", why, "Shorten it, or begin a new conversation.")
    tokens = given.get("max_new_tokens")
    if isinstance(tokens, int | float):
        check_new_tokens(settings, tokens)


def _texts(waiting: list[Any]) -> Iterator[str]:
    """Every text at any depth, without recursion."""
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
