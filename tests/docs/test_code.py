"""Code and commands in the documents: run where they are marked, parsed and compared with the program elsewhere."""

from __future__ import annotations

import importlib.util
import json
import re
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from plugins import TaskPlugin
from plugins._discovery import discover
from tests.docs.documents import BODY, DOCUMENTS, PAGES, ROOT, USERS, marked
from tests.docs.picture import CAPTIONS, SCALE, WIDTH, compose
from tests.helpers import tiny
from tests.helpers.answers import pool_at
from tests.helpers.child import run

pytestmark = pytest.mark.slow

PICTURE = ROOT / "docs" / "images" / "loop.png"


def module_commands() -> list[tuple[str, list[str]]]:
    """Return (module and subcommands, options) of every `python -m ...` in the documents."""
    text = "\n".join([USERS, DOCUMENTS["CONTRIBUTING.md"], DOCUMENTS["SECURITY.md"]])
    found = re.findall(r"python -m ([\w.]+)((?: [a-z]+(?![\w./@-]))*)([^`\n]*)", text)
    return [(module + words, re.findall(r"--[\w-]+", rest)) for module, words, rest in found if module != "venv"]


@cache
def help_of(command: str) -> str:
    """Return the help of a module's command; empty where it takes no arguments."""
    child = run("-m", *command.split(), "--help")
    assert child.returncode == 0, f"{command}: {child.stderr}"
    return child.stdout


def test_every_module_that_is_run_exists_and_has_the_options() -> None:
    found = module_commands()
    assert ("training", ["--plugin", "--data", "--name", "--promote"]) in found and len(found) >= 20
    for command, options in found:
        module, *words = command.split()
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        assert not spec.submodule_search_locations or importlib.util.find_spec(f"{module}.__main__"), module
        if words or options:
            text = help_of(command)
            assert set(options) <= set(re.findall(r"--[\w-]+", text)), command
            assert not words or words[0] in text, command


def test_every_option_in_a_sentence_is_one_of_training() -> None:
    loose = set(re.findall(r"`(--[\w-]+)[ `]", USERS))
    assert {"--promote", "--quantize"} <= loose <= set(re.findall(r"--[\w-]+", help_of("training")))


def test_plugin_of_the_readme_works(tmp_path: Path) -> None:
    ((source,), (name,)) = marked(r"plugin: \w+\.py", BODY), re.findall(r"<!-- plugin: (\w+\.py) -->", BODY)
    assert len(source.splitlines()) <= 25
    (tmp_path / name).write_text(source)
    (tab,) = discover(tmp_path)
    assert tab.plugin is not None, tab.error
    spec = tab.plugin.spec({tab.name: str(tiny.make("llama", tmp_path / "base"))})
    assert spec.learns and tab.name == name.removesuffix(".py") and len(tab.plugin.inputs() + tab.plugin.outputs()) == 2
    with pool_at(tmp_path, base=spec.model).open(spec) as lm:
        answers = list(tab.plugin.predict(lm, "The harbour was closed on Monday because of ice."))
    assert len(answers) > 1 and answers[-1].startswith(answers[0])


def test_page_on_plugins_has_the_whole_contract() -> None:
    page = PAGES["docs/plugins.md"]
    facts = [name for name in TaskPlugin.__annotations__ if not name.startswith("_")]
    methods = ("inputs", "options", "outputs", "predict", "load")
    assert len(facts) >= 9 and [fact for fact in facts if f"| `{fact}` |" not in page] == []
    assert [method for method in methods if not re.search(rf"\| `{method}\(", page)] == []


def test_training_from_python_works(tmp_path: Path) -> None:
    (source,) = marked("python: train")
    assert source.count("promote=True") == 1
    quick, base = source.replace("promote=True", "promote=True, max_steps=2"), tiny.make("bert", tmp_path / "base")
    child = run("-c", quick, GRAFT_HOME=str(tmp_path / "home"), GRAFT_MODEL_CLASSIFICATION=str(base))
    assert child.stdout.split() == ["done", "tickets@1"], child.stdout + child.stderr


def test_page_on_the_api_has_every_argument(tmp_path: Path) -> None:
    show = "import json, app; print(json.dumps(app.demo.get_api_info()['named_endpoints']))"
    endpoints = json.loads(run("-c", show, GRAFT_HOME=str(tmp_path)).stdout.splitlines()[-1])
    taken = {one["parameter_name"] for endpoint in endpoints.values() for one in endpoint["parameters"]}
    assert len(taken) >= 10 and {name for name in taken if f"`{name}`" not in PAGES["docs/api.md"]} == set()


def test_every_link_and_picture_exists() -> None:
    links = [(ROOT / name, link) for name, text in DOCUMENTS.items() for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    assert len(links) >= 20
    for document, link in links:
        path, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = document.parent / path if path else document
        assert target.exists(), f"{document.name} links to {link}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, link


def test_every_page_of_docs_is_linked() -> None:
    linked = {Path(link).name for text in DOCUMENTS.values() for link in re.findall(r"\]\(([^)#\s]+\.md)", text)}
    assert {name for name in PAGES if Path(name).name not in linked} == set()


def test_picture_is_small_and_as_wide_as_two_frames(tmp_path: Path) -> None:
    assert PICTURE.stat().st_size < 400_000
    with Image.open(PICTURE) as picture:
        assert picture.width == 2 * WIDTH * SCALE
    for number in range(1, len(CAPTIONS) + 1):
        Image.new("RGB", (WIDTH, 60), "white").save(tmp_path / f"{number}-0.png")
    compose(tmp_path, tmp_path / "loop.png")
    with Image.open(tmp_path / "loop.png") as made:
        assert made.width == 2 * WIDTH * SCALE and made.height > 2 * 60


def test_targets_of_make_exist() -> None:
    made = set(re.findall(r"`make (\w+)`", "\n".join(DOCUMENTS.values())))
    assert made and all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in made)
