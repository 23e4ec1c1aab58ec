"""README.md: a Gradio Space by its front matter, two commands, a map of the folders, six figures, one page."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import yaml

from plugins._discovery import discover
from tests.docs.documents import BODY, DOCUMENTS, FRONT, PAGES, README, ROOT, blocks, marked

COMMANDS = ["pip install -r requirements.txt && python app.py", "pip install -r requirements-dev.txt && pytest"]
LINES = 150
"""The longest that README.md and a file of docs/ may be."""
PACKAGES = ("plugins", "ui", "serving", "training", "models", "hub", "store", "bench")


def test_front_matter_is_that_of_a_gradio_space() -> None:
    texts = ("title", "emoji", "sdk", "sdk_version", "app_file", "python_version", "license", "short_description")
    assert [key for key in texts if not isinstance(FRONT[key], str)] == []
    assert (FRONT["sdk"], FRONT["app_file"], FRONT["license"]) == ("gradio", "app.py", "apache-2.0")
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {FRONT["colorFrom"], FRONT["colorTo"]} <= colours
    assert len(FRONT["short_description"]) <= 60 and len(FRONT["emoji"]) == 1 and FRONT["pinned"] is False
    assert FRONT["tags"] and all(isinstance(tag, str) for tag in FRONT["tags"])
    assert FRONT["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}", "the version that is tested"


def test_space_preloads_the_models_of_the_tabs() -> None:
    models = {tab.plugin.model for tab in discover(ROOT / "plugins") if tab.plugin}
    assert set(FRONT["models"]) == models and len(models) >= 2
    preloaded = {entry.split()[0]: entry.split()[1].split(",") for entry in FRONT["preload_from_hub"]}
    assert set(preloaded) == models
    for files in preloaded.values():
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)


def test_two_commands_start_and_test_in_that_order() -> None:
    assert [block.strip() for block in marked("command: (?:start|test)", BODY)] == COMMANDS
    assert [block.strip() for block in blocks("sh", BODY) if block.startswith("pip install")] == COMMANDS


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK) and script.startswith("#!/usr/bin/env bash\n")
    (line,) = [line for line in script.splitlines() if line.startswith("test_command=")]
    shown = subprocess.run(["bash", "-c", f'{line}; echo "$test_command"'], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout.strip() == COMMANDS[1]
    assert script.splitlines()[-1] == 'bash -euo pipefail -c "$test_command" </dev/null'


def test_hooks_and_guide_have_the_checks_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    checks = [line for line in script if re.match(r"(ruff|mypy)\b", line)]
    assert len(checks) >= 2
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == checks
    assert [line.strip() for line in DOCUMENTS["CONTRIBUTING.md"].splitlines() if line.strip() in checks] == checks


def test_documents_fit_their_length() -> None:
    assert len(PAGES) >= 10
    texts = {"README.md": README, **PAGES}
    assert {name: text.count("\n") for name, text in texts.items() if text.count("\n") > LINES} == {}


def test_changelog_has_the_releases_and_short_entries() -> None:
    text = DOCUMENTS["CHANGELOG.md"]
    assert re.findall(r"^## \[([\w.]+)\]", text, re.MULTILINE)[-2:] == ["0.2.0", "0.1.0"]
    entries = re.findall(r"^- .*(?:\n  \S.*)*", text, re.MULTILINE)
    assert len(entries) >= 40 and [entry for entry in entries if entry.count("\n") > 1] == []


def mapped() -> dict[str, set[str]]:
    """Return the folders at the top that the map of the README names, each with the folders in its description."""
    (text,) = re.findall(r"^## Map\n\n```\n(.*?)^```$", BODY, re.MULTILINE | re.DOTALL)
    cells = [cell.strip() for line in text.splitlines() for cell in re.split(r"\s{2,}", line) if cell.strip()]
    pairs = dict(zip(cells[::2], cells[1::2], strict=True))
    return {name.removesuffix("/"): set(re.findall(r"([\w-]+)/", words)) for name, words in pairs.items()}


def test_map_names_the_folders_that_are_there_and_no_others() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^(\w[^/\n]*)/", tracked, re.MULTILINE)) == set(mapped())
    rooms = {name: {path.parent.name for path in (ROOT / name).glob("*/__init__.py")} for name in PACKAGES}
    assert len(rooms["training"]) >= 5 and rooms == {name: mapped()[name] for name in PACKAGES}
    assert all((ROOT / "tests" / room).is_dir() for room in mapped()["tests"])


def rows(text: str) -> list[list[str]]:
    """Return the cells of each line of all Markdown tables."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_figures_of_the_readme_stand_in_the_benchmarks() -> None:
    """Six rows; each number in one place of benchmarks.md, so that nobody changes one of the two alone."""
    (table,) = re.findall(r"^## Figures\n(.*?)^## ", BODY, re.MULTILINE | re.DOTALL)
    figures = [row for row in rows(table) if row[0] not in ("what", "---")]
    assert len(figures) == 6
    numbers = {number for row in figures for cell in row[2:] for number in re.findall(r"\d[\d.,]*\d", cell)}
    known = set(re.findall(r"\d[\d.,]*\d", PAGES["docs/benchmarks.md"]))
    assert len(numbers) >= 10 and numbers - known == set()


def test_estimate_of_the_large_run_is_the_same_everywhere() -> None:
    texts = [text for text in (BODY, PAGES["docs/train.md"], PAGES["docs/benchmarks.md"]) if "11.3 GB" in text]
    assert len(texts) == 3 and all("not run here" in text.lower() and re.search(r"84\s+steps", text) for text in texts)


def test_licence_is_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and len(text) > 11_000
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text() and "Apache-2.0" in BODY
