"""Every word of the page, in each language. Static texts are chosen by the browser, composed ones by the request.

t("train.button")                      # a label: the browser translates it
words(request)("train.rows", rows=240) # a sentence composed here, in the language that the request asks for
asked().sentence("There is no text.")  # one of an error, made where no language is known, by the texts of `said`
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from gradio.i18n import I18nData

from plugins import TaskPlugin

LOCALES = Path(__file__).resolve().parent / "locales"
ENGLISH, CHINESE = "en", "zh-CN"
LANGUAGES = (ENGLISH, CHINESE)


@cache
def texts(language: str) -> Mapping[str, str]:
    """The texts of one language by key."""
    found: dict[str, str] = json.loads((LOCALES / f"{language}.json").read_text(encoding="utf-8"))
    return found


def t(key: str) -> I18nData:
    """A text that the browser shows in its own language."""
    return I18nData(key)


def readable(value: object) -> object:
    """A whole number as people read it, 8,541; anything else as it is."""
    return f"{value:,}" if type(value) is int else value


class Words:
    """Composes texts in one language."""

    def __init__(self, language: str = ENGLISH) -> None:
        self.language = language

    def __call__(self, key: str, **values: Any) -> str:  # noqa: ANN401 - anything that a text can hold
        """The text of `key` with its {places} filled; whole numbers with separators of thousands."""
        return texts(self.language)[key].format(**{name: readable(value) for name, value in values.items()})

    def sentence(self, english: str) -> str:
        """A sentence that was made away from the page, as those of errors are, in this language if `said` has it."""
        if self.language == ENGLISH:
            return english
        found = ((key, pattern.fullmatch(english)) for key, pattern in _sentences().items())
        return next((self(key, **match.groupdict()) for key, match in found if match), english)


@cache
def _sentences() -> Mapping[str, re.Pattern[str]]:
    """What recognizes each sentence of `said`, by its key."""
    return {key: pattern_of(text) for key, text in texts(ENGLISH).items() if key.startswith("said.")}


def pattern_of(text: str) -> re.Pattern[str]:
    """What recognizes a text with its {places} filled, and finds what they were filled with."""
    parts = string.Formatter().parse(text)
    return re.compile("".join(re.escape(plain) + (f"(?P<{name}>.+)" if name else "") for plain, name, *_ in parts))


def asked() -> Words:
    """The words for the one whose request is being answered, wherever that is; English outside of any request."""
    return words(LocalContext.request.get(None))


def words(request: gr.Request | None) -> Words:
    """The words for the one who asks, by Accept-Language."""
    headers = getattr(request, "headers", None) or {}
    return Words(language_of(str(headers.get("accept-language") or "")))


def language_of(accept: str) -> str:
    """The language of an Accept-Language header that we have, in the header's own order."""
    for tag in accept.lower().split(","):
        if tag.strip().startswith("zh"):
            return CHINESE
        if tag.strip().startswith("en"):
            return ENGLISH
    return ENGLISH


def translations(plugins: Iterable[TaskPlugin]) -> gr.I18n:
    """Everything that the browser may have to show, with the plugins' own words."""
    own = list(plugins)
    tables = {language: {**texts(language), **_said(own, language)} for language in LANGUAGES}
    # A browser set to plain `zh` is a reader of Chinese too.
    return gr.I18n(**tables, zh=tables[CHINESE])


def _said(plugins: Iterable[TaskPlugin], language: str) -> dict[str, str]:
    every = ((p, english) for p in plugins for table in p.words.values() for english in table)
    return {f"{p.name}: {english}": p.words.get(language, {}).get(english, english) for p, english in every}


def english(value: Any, plugins: Iterable[TaskPlugin]) -> Any:  # noqa: ANN401 - JSON
    """`value` with every translatable text in English: what API callers read is not translated by any browser."""
    known = {**texts(ENGLISH), **_said(plugins, ENGLISH)}

    def walk(part: Any) -> Any:  # noqa: ANN401
        if isinstance(part, I18nData):
            return known.get(part.key, part.key)
        if isinstance(part, dict):
            return {key: walk(child) for key, child in part.items()}
        return [walk(child) for child in part] if isinstance(part, list) else part

    return walk(value)
