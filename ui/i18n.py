"""Translation of the page. The browser translates labels; sentences are composed in the language of the request.

t("train.start")                                           # a label, which the browser translates
words(request)("run.step", step=3, steps=9)                # a text by its key in `locales/`
request_words().sentence(Text("{n} requests wait.", n=3))  # an error or note, by its English template: keys `said.*`
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import gradio as gr

from errors import Text
from plugins import TaskPlugin
from ui.web.gradio_private import I18nData, current_request

LOCALES = Path(__file__).resolve().parent / "locales"
ENGLISH, CHINESE = "en", "zh-CN"
LANGUAGES = (ENGLISH, CHINESE)


@cache
def texts(language: str) -> Mapping[str, str]:
    """Return the texts of one language by key."""
    table: dict[str, str] = json.loads((LOCALES / f"{language}.json").read_text(encoding="utf-8"))
    return table


def t(key: str) -> I18nData:
    """Return a label that the browser shows in its own language."""
    return I18nData(key)


def readable(value: object) -> object:
    """Write a whole number with separators of thousands, as 8,541; return any other value as it is."""
    return f"{value:,}" if type(value) is int else value


class Words:
    """Texts of one language, by key."""

    def __init__(self, language: str = ENGLISH) -> None:
        self.language = language

    def __call__(self, key: str, **values: Any) -> str:  # noqa: ANN401 - anything that a text can hold
        """Return the text of `key` with its {fields} filled."""
        return texts(self.language)[key].format(**{name: readable(value) for name, value in values.items()})

    def sentence(self, english: str) -> str:
        """Translate a sentence of an error or note; one without a translation stays English."""
        template, values = (english.template, english.values) if isinstance(english, Text) else (english, {})
        key = None if self.language == ENGLISH else _sentence_keys().get(template)
        return self(key, **values) if key else english


@cache
def _sentence_keys() -> Mapping[str, str]:
    """Return the key of each English template of `said.*`."""
    return {text: key for key, text in texts(ENGLISH).items() if key.startswith("said.")}


def request_words() -> Words:
    """Return the texts in the language of the request whose handler runs in this context; English outside of any."""
    return words(current_request())


def words(request: Any) -> Words:  # noqa: ANN401 - a request of Gradio or Starlette, or None
    """Return the texts in the language of a request, by its Accept-Language header."""
    headers = getattr(request, "headers", None) or {}
    return Words(language_of(str(headers.get("accept-language") or "")))


def language_of(accept: str) -> str:
    """Return the first language of an Accept-Language header that the page has, or else English."""
    for tag in accept.lower().split(","):
        if tag.strip().startswith("zh"):
            return CHINESE
        if tag.strip().startswith("en"):
            break
    return ENGLISH


def translations(plugins: Sequence[TaskPlugin]) -> gr.I18n:
    """Return the texts that the browser translates labels with: the page's and the plugins' own."""
    tables = {language: {**texts(language), **_plugin_texts(plugins, language)} for language in LANGUAGES}
    return gr.I18n(**tables, zh=tables[CHINESE])  # a browser may ask for plain `zh`


def _plugin_texts(plugins: Sequence[TaskPlugin], language: str) -> dict[str, str]:
    every = ((p, english) for p in plugins for table in p.words.values() for english in table)
    return {f"{p.name}: {english}": p.words.get(language, {}).get(english, english) for p, english in every}


def english(value: Any, plugins: Sequence[TaskPlugin]) -> Any:  # noqa: ANN401 - JSON
    """Replace labels at any depth of `value` by their English text, for API clients, which do not translate."""
    known = {**texts(ENGLISH), **_plugin_texts(plugins, ENGLISH)}

    def walk(part: Any) -> Any:  # noqa: ANN401
        if isinstance(part, I18nData):
            return known.get(part.key, part.key)
        if isinstance(part, dict):
            return {key: walk(child) for key, child in part.items()}
        return [walk(child) for child in part] if isinstance(part, list) else part

    return walk(value)
