"""The README says what is so: its commands, code, settings, front matter and map are compared with the code itself."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from models.resolve import ModelStore
from plugins._discovery import discover
from serving.pool import Pool
from settings import Settings
from store.adapters import AdapterStore
from tests.helpers import tiny
from training.__main__ import COMMANDS as TRAINING
from training.config import TRACKERS

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("*.md"))}
FRONT, BODY = yaml.safe_load(README.split("---\n")[1]), README.split("---\n", 2)[2]
COMMANDS = ["pip install -r requirements.txt && python app.py", "pip install -r requirements-dev.txt && pytest"]
FLOORS = {"gradio": "6.31", "transformers": "5.23", "torch": "2.10", "brotli": "1.2.1"}
"""Versions below these have published ways to run a stranger's code or to be driven by a stranger's page."""
PACKAGES = ("plugins", "ui", "serving", "training", "store", "bench")
ENVIRONMENT = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ} | {"HF_HUB_OFFLINE": "1"}


def marked(marker: str, text: str = BODY) -> list[str]:
    """The contents of the code blocks behind an invisible comment `<!-- marker -->`."""
    return re.findall(rf"^<!-- {marker} -->\n```\w+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    """The contents of all code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", BODY, re.MULTILINE | re.DOTALL)


def is_ignored(name: str) -> bool:
    """Whether git ignores a file or folder of that name at the top."""
    patterns = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().splitlines()]
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def imported(source: str) -> set[str]:
    """The top-level names of everything that a source imports."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


def requirements(file: str) -> dict[str, Requirement]:
    """What a requirements file asks for, by normalized name, without the files that it includes."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def run(arguments: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """A child of this Python, in the repository."""
    return subprocess.run(
        [sys.executable, "-B", *arguments],
        cwd=ROOT, env=ENVIRONMENT | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_front_matter_is_a_gradio_space() -> None:
    texts = ("title", "emoji", "sdk", "sdk_version", "app_file", "python_version", "license", "short_description")
    assert [key for key in texts if not isinstance(FRONT[key], str)] == []
    assert (FRONT["sdk"], FRONT["app_file"], FRONT["license"]) == ("gradio", "app.py", "apache-2.0")
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {FRONT["colorFrom"], FRONT["colorTo"]} <= colours
    assert len(FRONT["short_description"]) <= 60 and len(FRONT["emoji"]) == 1 and FRONT["pinned"] is False
    assert FRONT["tags"] and all(isinstance(tag, str) for tag in FRONT["tags"])
    assert FRONT["python_version"] == f"{sys.version_info.major}.{sys.version_info.minor}", "the version that is tested"


def test_the_space_gets_a_gradio_that_the_requirements_allow() -> None:
    assert requirements("requirements.txt")["gradio"].specifier.contains(FRONT["sdk_version"])


def test_the_space_preloads_the_models_of_the_tabs() -> None:
    models = {tab.plugin.model for tab in discover(ROOT / "plugins") if tab.plugin}
    assert set(FRONT["models"]) == models and len(models) >= 2
    preloaded = {entry.split()[0]: entry.split()[1].split(",") for entry in FRONT["preload_from_hub"]}
    assert set(preloaded) == models
    for files in preloaded.values():
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(files)


def test_the_two_commands_are_there_in_order() -> None:
    assert [block.strip() for block in marked("command: (?:start|test)")] == COMMANDS
    assert [block.strip() for block in blocks("sh") if block.startswith("pip install")] == COMMANDS


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK) and script.startswith("#!/usr/bin/env bash\n")
    (line,) = [line for line in script.splitlines() if line.startswith("test_command=")]
    shown = subprocess.run(["bash", "-c", f'{line}; echo "$test_command"'], cwd=ROOT, capture_output=True, text=True)
    assert shown.stdout.strip() == COMMANDS[1]
    assert script.splitlines()[-1] == 'bash -euo pipefail -c "$test_command" </dev/null'


def test_the_hooks_and_the_guide_have_the_checks_of_ci() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    checks = [line for line in script if re.match(r"(ruff|mypy)\b", line)]
    assert len(checks) >= 2
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    assert [hook["entry"] for hook in hooks] == checks
    assert [line.strip() for line in DOCUMENTS["CONTRIBUTING.md"].splitlines() if line.strip() in checks] == checks


def module_commands() -> list[tuple[str, list[str]]]:
    """(module and its command, options) of every `python -m ...` in the documents."""
    pattern = rf"python -m (training (?:corrections \w+|{'|'.join(TRAINING)})\b|[\w.]+)([^`\n]*)"
    found = re.findall(pattern, "\n".join([BODY, DOCUMENTS["CONTRIBUTING.md"]]))
    return [(module, re.findall(r"--[\w-]+", rest)) for module, rest in found if module != "venv"]


@cache
def options_of(command: str) -> set[str]:
    child = run(["-m", *command.split(), "--help"])
    assert child.returncode == 0, child.stderr
    return set(re.findall(r"--[\w-]+", child.stdout))


def test_every_module_that_is_run_exists_and_has_the_options() -> None:
    found = module_commands()
    assert ("training", ["--plugin", "--data", "--name", "--promote"]) in found and len(found) >= 2
    for command, options in found:
        module = command.split()[0]
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        assert not spec.submodule_search_locations or importlib.util.find_spec(f"{module}.__main__")
        assert not options or set(options) <= options_of(command), command
    loose = set(re.findall(r"`(--[\w-]+)[ `]", BODY)) - {"--extra-index-url"}
    assert {"--promote", "--quantize"} <= loose <= options_of("training")


def test_the_plugin_works(tmp_path: Path) -> None:
    ((name, source),) = re.findall(
        r"^<!-- plugin: (\w+\.py) -->\n```python\n(.*?)^```$", BODY, re.MULTILINE | re.DOTALL
    )
    assert len(source.splitlines()) <= 25
    (tmp_path / name).write_text(source)
    (tab,) = discover(tmp_path)
    assert tab.plugin is not None, tab.error
    spec = tab.plugin.spec({tab.name: str(tiny.make("llama", tmp_path / "base"))})
    assert spec.learns and tab.name == name.removesuffix(".py") and len(tab.plugin.inputs() + tab.plugin.outputs()) == 2
    pool = Pool(Settings(home=tmp_path, quantize="none"), ModelStore(tmp_path, offline=True), AdapterStore(tmp_path))
    pool.declare(spec.model)
    with pool.open(spec) as lm:
        answers = list(tab.plugin.predict(lm, "The harbour was closed on Monday because of ice."))
    assert len(answers) > 1 and answers[-1].startswith(answers[0])


def test_training_from_python_works(tmp_path: Path) -> None:
    (source,) = marked("python: train")
    source, quick = source.replace("promote=True", "promote=True, max_steps=2"), source.count("promote=True")
    assert quick == 1
    base = tiny.make("bert", tmp_path / "base")
    child = run(["-c", source], GRAFT_HOME=str(tmp_path / "home"), GRAFT_MODEL_CLASSIFICATION=str(base))
    assert child.stdout.split() == ["done", "tickets@1"], child.stdout + child.stderr


def test_every_python_block_imports_what_there_is() -> None:
    sources = blocks("python")
    assert len(sources) == 4
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def test_the_endpoints_exist_and_take_what_the_readme_gives(tmp_path: Path) -> None:
    (source,) = [block for block in blocks("python") if "gradio_client" in block]
    show = "import json, app; print(json.dumps(app.demo.get_api_info()['named_endpoints']))"
    child = run(["-c", show], GRAFT_HOME=str(tmp_path))
    assert child.returncode == 0, child.stderr
    endpoints = json.loads(child.stdout.splitlines()[-1])
    calls = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and "predict" in ast.unparse(node.func)
    ]
    assert len(calls) >= 3
    for call in calls:
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        endpoint = endpoints[ast.literal_eval(given.pop("api_name"))]
        assert set(given) <= {parameter["parameter_name"] for parameter in endpoint["parameters"]}
        assert len(endpoint["returns"]) == 2, "the answer, and what answered"


def mapped() -> set[str]:
    """Every path that the README's map names; a line that is indented lies in the folder above it."""
    (text,) = re.findall(r"^## Map\n\n```\n(.*?)^```$", BODY, re.MULTILINE | re.DOTALL)
    found, folder = set[str](), ""
    for line in text.splitlines():
        name = line.split()[0]
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        found.add(folder + name if line.startswith(" ") else name)
        assert len(line.split()) > 1, f"{name} is not explained"
    return found


def existing() -> Iterator[str]:
    """What the map must name: everything at the top that git has, and every module of the packages."""
    for path in ROOT.iterdir():
        if not is_ignored(path.name) and not path.name.startswith(".") and path.name != "README.md":
            yield f"{path.name}/" if path.is_dir() else path.name
    for package in PACKAGES:
        yield from (
            str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py") if path.name != "__init__.py"
        )


def test_the_map_names_what_there_is_and_nothing_else() -> None:
    there = set(existing())
    assert len(there) >= 75
    assert there - mapped() == set(), "not on the map"
    assert {path for path in mapped() if not (ROOT / path).exists()} == set(), "on the map, but not there"


def test_every_link_and_picture_exists() -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", "\n".join(DOCUMENTS.values()))
    assert [t for t in targets if not t.startswith("http") and not (ROOT / t).exists()] == []


def test_the_targets_of_make_exist() -> None:
    made = set(re.findall(r"`make (\w+)`", "\n".join(DOCUMENTS.values())))
    assert made and all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in made)


def test_the_licence_is_the_one_that_is_named() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and len(text) > 11_000
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text() and "Apache-2.0" in BODY


def third_party(paths: list[Path], *sources: str) -> set[str]:
    """Names of the distributions whose packages are imported."""
    ours = {path.stem for path in ROOT.iterdir() if path.suffix in ("", ".py")}
    tops = set[str]().union(*(imported(text) for text in [*(path.read_text() for path in paths), *sources]))
    providers, found = packages_distributions(), set[str]()
    for top in tops - ours - set(sys.stdlib_module_names):
        assert top in providers, f"nothing installed provides {top}"
        found |= {canonicalize_name(name) for name in providers[top]}
    return found


def test_every_import_is_required() -> None:
    needed = [folder for folder in PACKAGES if folder != "bench"]
    app = [path for folder in needed for path in (ROOT / folder).rglob("*.py")] + list(ROOT.glob("*.py"))
    tests = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
    assert len(app) >= 67 and len(tests) >= 20
    runtime, development = requirements("requirements.txt"), requirements("requirements-dev.txt")
    assert "-r requirements.txt" in (ROOT / "requirements-dev.txt").read_text().splitlines()
    optional = set[str]().union(*TRACKERS.values())
    assert optional and optional <= set(development)
    assert {"torch", "gradio", "peft"} <= third_party(app) <= set(runtime) | optional
    assert third_party(tests, *blocks("python")) <= set(runtime) | set(development)


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_a_range_that_holds_what_was_tried(file: str) -> None:
    found = requirements(file)
    assert len(found) >= 8
    for name, requirement in found.items():
        operators = sorted(specifier.operator for specifier in requirement.specifier)
        assert operators == ["<", ">="], f"{name} needs a lower and an upper bound"
        assert requirement.marker is None and requirement.url is None


@pytest.mark.parametrize("name", FLOORS)
def test_r47_nothing_below_a_floor_is_allowed(name: str) -> None:
    specifier = requirements("requirements.txt")[name].specifier
    (lower,) = [s.version for s in specifier if s.operator == ">="]
    assert Requirement(f"x>={FLOORS[name]}").specifier.contains(lower)


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_what_is_installed_is_what_is_required(file: str) -> None:
    for requirement in requirements(file).values():
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            assert requirement.name == "pre-commit", f"{requirement.name} is not installed"
        else:
            assert requirement.specifier.contains(version), f"{requirement.name} {version}"
