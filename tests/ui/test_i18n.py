"""Words: the same keys in each language, each key that the code uses exists, and the plugins' own words are whole."""

import ast
import re
import string
from types import SimpleNamespace

import pytest

from plugins._discovery import discover
from settings import REPOSITORY
from ui.html.format import figure
from ui.html.tags import line, table, tag
from ui.i18n import CHINESE, ENGLISH, Words, english, language_of, t, texts, translations, words

SECTIONS = sorted({key.split(".")[0] for key in texts(ENGLISH)})
TABLES = re.compile(
    r"(adapters|base_by|bases|bases\.why|change|compare|estimate|estimate\.by|gate|help|history|hub|import|knob|knobs|merged|metric|models|no_live"
    r"|phase|preset|rows|run|said|train|train\.column|verdict)[._]"
)
"""Beginnings of keys whose ends are values."""
KEY = re.compile(rf"({'|'.join(SECTIONS)})\.[a-z_0-9]*[a-z0-9]")


def used_keys() -> set[str]:
    """Every literal first argument of t(), say() and words in ui/, f-strings as patterns."""
    found = set()
    for path in sorted((REPOSITORY / "ui").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEY.fullmatch(node.value):
                found.add(node.value)
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
                prefix = node.values[0].value
                if TABLES.fullmatch(prefix) and len(node.values) == 2:
                    found.add(prefix + "*")
    return found


def test_both_languages_have_the_same_keys_and_places() -> None:
    assert list(texts(ENGLISH)) == list(texts(CHINESE)) == sorted(texts(ENGLISH))
    places = {key: sorted(p[1] for p in string.Formatter().parse(text) if p[1]) for key, text in texts(ENGLISH).items()}
    for key, text in texts(CHINESE).items():
        assert sorted(p[1] for p in string.Formatter().parse(text) if p[1]) == places[key], key
        assert text.strip()


def test_every_key_used_exists_and_every_key_is_used() -> None:
    keys, used = set(texts(ENGLISH)), used_keys()
    exact, prefixes = {k for k in used if not k.endswith("*")}, tuple(k[:-1] for k in used if k.endswith("*"))
    assert len(exact) > 60 and len(prefixes) >= 4
    assert exact - keys == set()
    assert {key for key in keys - exact if not key.startswith((*prefixes, "said."))} == set()


def made_in_code() -> set[str]:
    """Every text in the code that makes answers and errors, its values left out."""
    found = set()
    for folder in ("serving", "store", "ui"):
        for path in (REPOSITORY / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
                    found.add("".join(map(str, parts)))
    return found


def test_every_sentence_that_is_translated_is_one_that_the_code_says() -> None:
    said = {key: re.sub(r"{\w+}", "{}", text) for key, text in texts(ENGLISH).items() if key.startswith("said.")}
    made = made_in_code()
    assert len(said) > 40 and {key for key, text in said.items() if text not in made} == set()


def test_sentences_of_errors_are_said_in_the_readers_language() -> None:
    say = Words(CHINESE)
    long = "It has 200,001 characters; the limit is 200,000."
    assert say.sentence(long) == "共 200,001 个字符；上限为 200,000 个。" and Words().sentence(long) == long
    assert say.sentence("There is no text. And more.") == "There is no text. And more.", "it is not one that is known"
    assert say.sentence("{n} is still loading.") == "{n} 仍在加载。"


@pytest.mark.parametrize("tab", discover(REPOSITORY / "plugins"), ids=lambda tab: tab.name)
def test_every_word_of_a_plugin_is_translated(tab) -> None:
    plugin, source = tab.plugin, tab.path.read_text(encoding="utf-8")
    said = set(re.findall(r'self\.say\("([^"]+)"\)', source)) | {plugin.title, plugin.description}
    assert len(said) >= 4
    assert said <= set(plugin.words[CHINESE])


def test_the_browser_gets_every_word() -> None:
    plugins = [tab.plugin for tab in discover(REPOSITORY / "plugins")]
    tables = translations(plugins).translations_dict
    assert tables["zh-CN"]["classification: Classify"] == "分类"
    assert tables["en"]["classification: Classify"] == "Classify"
    assert tables["zh"] == tables["zh-CN"] and set(tables["en"]) == set(tables["zh-CN"])
    assert english({"label": t("train.start"), "list": [plugins[0].say("Text")]}, plugins) == {
        "label": "Train", "list": ["Text"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("accept", "language"),
    [("zh-CN,zh;q=0.9,en;q=0.8", CHINESE), ("en-GB,en;q=0.5,zh;q=0.1", ENGLISH), ("de,zh;q=0.5", CHINESE),
     ("", ENGLISH), ("zh", CHINESE), ("*", ENGLISH)],
)  # fmt: skip
def test_language_by_request(accept: str, language: str) -> None:
    assert language_of(accept) == language
    assert words(SimpleNamespace(headers={"accept-language": accept})).language == language
    assert words(None).language == ENGLISH


def test_places_are_filled() -> None:
    assert Words()("run.step", step=3, steps=9) == "Step 3 of 9"
    assert Words(CHINESE)("run.step", step=3, steps=9) == "第 3 步，共 9 步"


@pytest.mark.parametrize("language", [ENGLISH, CHINESE])
def test_numbers_have_separators_of_thousands(language) -> None:
    said = Words(language)
    assert "8,541" in said("adapters.rows", n=8541) and "1,234,567" in said("run.step", step=7, steps=1234567)
    assert "2026" in said("history.promoted", version="2026") and "0.25" in said("estimate.needs", memory=0.25, free="",
                                                                             disk="", steps=9)  # fmt: skip
    assert table(["n"], [[8541]]).count("8,541") == line("n", 1, 8541).count("8,541") == 1
    assert 'width="1000"' in tag("rect", width=1000), "an attribute is no text"
    assert figure("perplexity", 1234.5) == "1,234.50" and figure("accuracy", 0.5) == "50.0 %"
