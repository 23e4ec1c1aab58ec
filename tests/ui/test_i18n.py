"""ui/i18n.py: the same keys in each language, a text for each key used, and a translation of what visitors read."""

import ast
import re
import string
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from errors import Text
from plugins._discovery import discover
from settings import REPOSITORY
from ui.html.format import figure
from ui.html.tags import line, table, tag
from ui.i18n import CHINESE, ENGLISH, Words, english, t, texts, translations, words

SECTIONS = sorted({key.split(".")[0] for key in texts(ENGLISH)})
TABLES = re.compile(
    r"(adapters|base_by|bases|bases\.why|change|compare|estimate|estimate\.by|gate|help|history|hub|import|knob|knobs|merged|metric|models|no_live"
    r"|phase|preset|rows|run|said|train|train\.column|verdict)[._]"
)
"""Beginnings of keys whose ends are values."""
UI = REPOSITORY / "ui"
UNTRANSLATED = {"truncation_note(tokens, read)", "f'{error.what} {error.why}'"}
"""A function whose sentence is checked by itself, and the refusal of a version, for the operator."""
KEY = re.compile(rf"({'|'.join(SECTIONS)})\.[a-z_0-9]*[a-z0-9]")


def modules() -> dict[Path, ast.Module]:
    """Return the syntax tree of every module of the product by its path."""
    folders = [path.parent for path in REPOSITORY.glob("*/__init__.py") if path.parent.name not in ("tests", "bench")]
    paths = [*REPOSITORY.glob("*.py"), *(path for folder in folders for path in folder.rglob("*.py"))]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def used_keys() -> set[str]:
    """Return every literal in ui/ that looks like a key; f-strings of a table as its beginning with a star."""
    found = set()
    for node in (node for path, tree in modules().items() if path.is_relative_to(UI) for node in ast.walk(tree)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEY.fullmatch(node.value):
            found.add(node.value)
        if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            prefix = node.values[0].value
            if TABLES.fullmatch(prefix) and len(node.values) == 2:
                found.add(prefix + "*")
    return found


def fields(text: str) -> list[str]:
    return sorted(name for _, name, *_ in string.Formatter().parse(text) if name)


def test_both_languages_have_the_same_keys_and_fields() -> None:
    assert list(texts(ENGLISH)) == list(texts(CHINESE)) == sorted(texts(ENGLISH))
    for key, text in texts(CHINESE).items():
        assert text.strip() and fields(text) == fields(texts(ENGLISH)[key]), key


def test_every_key_used_exists_and_every_key_is_used() -> None:
    keys, used = set(texts(ENGLISH)), used_keys()
    exact, prefixes = {k for k in used if not k.endswith("*")}, tuple(k[:-1] for k in used if k.endswith("*"))
    assert len(exact) > 60 and len(prefixes) >= 4
    assert exact - keys == set()
    assert {key for key in keys - exact if not key.startswith((*prefixes, "said."))} == set()


def templates(node: ast.AST, assigned: Mapping[str, list[ast.AST]]) -> set[str]:
    """Return the sentences that an argument may be, with {fields}; one that cannot be translated as its source."""
    match node:
        case ast.Constant(value=str(text)):
            return {text} - {""}
        case ast.Call(func=ast.Name(id="Text"), args=[template]):
            return templates(template, assigned)
        case ast.Name(id=name) if name in assigned:
            parts = assigned[name]
        case ast.Subscript(value=value) | ast.Starred(value=value):
            parts = [value]
        case ast.IfExp(body=body, orelse=orelse):
            parts = [body, orelse]
        case ast.Tuple(elts=values) | ast.Dict(values=values):
            parts = values
        case _:
            return {ast.unparse(node)}
    return {text for part in parts for text in templates(part, assigned)}


def assignments(body: Iterable[ast.AST]) -> dict[str, list[ast.AST]]:
    found = defaultdict(list)
    for node in body:
        if isinstance(node, ast.Assign):
            found[ast.unparse(node.targets[0])].append(node.value)
    return found


def test_refusals_and_notes_that_visitors_read_are_translated() -> None:
    """As docs/deploy.md promises: `InputError`, `BusyError`, `AccessError`, notes, and the errors of a tab."""
    known, seen = {text for key, text in texts(ENGLISH).items() if key.startswith("said.")}, set[str]()
    for path, tree in modules().items():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            assigned = assignments(tree.body) | assignments(ast.walk(function))
            for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
                name = ast.unparse(call.func)
                tab = name == "AdapterError" and path.is_relative_to(UI / "tab")
                if name in ("InputError", "BusyError", "AccessError") or tab or name.endswith("notes.append"):
                    seen |= {text for argument in call.args for text in templates(argument, assigned)}
    assert len(seen) > 60 and seen - known - UNTRANSLATED == set()


def test_each_translated_sentence_is_one_of_the_product() -> None:
    nodes = [node for tree in modules().values() for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    made = {node.value for node in nodes if isinstance(node.value, str)}
    assert {text for key, text in texts(ENGLISH).items() if key.startswith("said.")} - made == set()


def test_a_sentence_is_translated_by_its_template() -> None:
    say = Words(CHINESE)
    long = Text("It has {n} characters; the limit is {limit}.", n="200,001", limit="200,000")
    assert say.sentence(long) == "共 200,001 个字符；上限为 200,000 个。" and Words().sentence(long) == long
    assert say.sentence("There is no text.") == "没有文本。"
    assert say.sentence("There is no text. And more.") == "There is no text. And more.", "it is not in the catalogue"
    assert say.sentence(Text("{base} is still loading.", base="{n}")) == "{n} 仍在加载。"
    assert say.sentence(Text("{base} is missing.", base="it")) == "it is missing."


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


def test_the_language_is_that_of_the_request() -> None:
    for accept in ("zh-CN,zh;q=0.9,en;q=0.8", "de,zh;q=0.5", "zh"):
        assert words(SimpleNamespace(headers={"accept-language": accept})).language == CHINESE
    for accept in ("en-GB,en;q=0.5,zh;q=0.1", "", "*"):
        assert words(SimpleNamespace(headers={"accept-language": accept})).language == ENGLISH
    assert words(None).language == ENGLISH


@pytest.mark.parametrize("language", [ENGLISH, CHINESE])
def test_numbers_have_separators_of_thousands(language) -> None:
    say = Words(language)
    assert say("run.step", step=7, steps=1234567) in ("Step 7 of 1,234,567", "第 7 步，共 1,234,567 步")
    assert "2026" in say("history.promoted", version="2026")
    assert "0.25" in say("estimate.needs", memory=0.25, free="", disk="", steps=9)
    assert table(["n"], [[8541]]).count("8,541") == line("n", 1, 8541).count("8,541") == 1
    assert 'width="1000"' in tag("rect", width=1000), "an attribute is no text"
    assert figure("perplexity", 1234.5) == "1,234.50" and figure("accuracy", 0.5) == "50.0 %"
