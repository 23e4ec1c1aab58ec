"""requirements*.txt, requirements.lock and pyproject.toml: all that is imported or read is required and installed."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_namespace_packages

import graft
from settings import REPOSITORY
from tests.docs.documents import FRONT, blocks
from training.config import TRACKERS

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LEFT_OUT = ("tests", "docs", ".ci")
"""Folders that stay in the repository."""
PLAIN = {".md", ".toml", ".txt", ".lock", ""}
"""Suffixes of files at the top that are not installed."""
FLOORS = {"gradio": "6.31", "transformers": "5.23", "torch": "2.10", "brotli": "1.2.1"}
"""Versions below these have published ways to run a stranger's code or to be driven by a stranger's page."""
PACKAGES = ("plugins", "ui", "serving", "training", "models", "hub", "store")
FILES = ("requirements.txt", "requirements-dev.txt")


def lines_of(file: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (REPOSITORY / file).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


def requirements(file: str) -> dict[str, Requirement]:
    """Return the requirements of a file by normalized name, without the files that it includes."""
    return {canonicalize_name(one.name): one for one in map(Requirement, lines_of(file))}


def imported(source: str) -> set[str]:
    """Return the top-level names of all imports of a source."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


def third_party(paths: list[Path], *sources: str) -> set[str]:
    """Return the names of the distributions whose packages are imported."""
    ours = {path.stem for path in REPOSITORY.iterdir() if path.suffix in ("", ".py")}
    tops = set[str]().union(*(imported(text) for text in [*(path.read_text() for path in paths), *sources]))
    providers, found = packages_distributions(), set[str]()
    for top in tops - ours - set(sys.stdlib_module_names):
        assert top in providers, f"nothing installed provides {top}"
        found |= {canonicalize_name(name) for name in providers[top]}
    return found


def test_every_import_is_required() -> None:
    app = [path for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py")]
    app += REPOSITORY.glob("*.py")
    tests = [path for folder in ("tests", "bench") for path in (REPOSITORY / folder).rglob("*.py")]
    assert len(app) >= 67 and len(tests) >= 20
    runtime, development = map(requirements, FILES)
    assert "-r requirements.txt" in (REPOSITORY / "requirements-dev.txt").read_text().splitlines()
    optional = set[str]().union(*TRACKERS.values())
    assert optional and optional <= set(development)
    assert {"torch", "gradio", "peft"} <= third_party(app) <= set(runtime) | optional
    assert third_party(tests, *blocks("python")) <= set(runtime) | set(development)


@pytest.mark.parametrize("file", FILES)
def test_every_requirement_is_a_range_around_what_is_installed(file: str) -> None:
    found = requirements(file)
    assert len(found) >= 8
    for name, requirement in found.items():
        operators = sorted(specifier.operator for specifier in requirement.specifier)
        assert operators == ["<", ">="], f"{name} needs a lower and an upper bound"
        assert requirement.marker is None and requirement.url is None
        if name != "pre-commit":  # the tests do without it
            assert requirement.specifier.contains(importlib.metadata.version(name)), name


@pytest.mark.parametrize("name", FLOORS)
def test_r47_nothing_below_a_floor_is_allowed(name: str) -> None:
    specifier = requirements("requirements.txt")[name].specifier
    (lower,) = [s.version for s in specifier if s.operator == ">="]
    assert Requirement(f"x>={FLOORS[name]}").specifier.contains(lower)


def test_a_space_gets_a_gradio_that_the_requirements_allow() -> None:
    assert requirements("requirements.txt")["gradio"].specifier.contains(FRONT["sdk_version"])


def test_the_lock_pins_versions_that_the_requirements_allow() -> None:
    pins = dict(line.split("==") for line in lines_of("requirements.lock"))
    wanted = [requirement for file in FILES for requirement in requirements(file).items()]
    for name, requirement in wanted:
        assert requirement.specifier.contains(pins[name]), name
    assert len(pins) > len(wanted) > 30
    assert not [version for version in pins.values() if "+" in version], "an index may have none of a local version"


def test_every_file_of_the_product_is_installed() -> None:
    packages = find_namespace_packages(str(REPOSITORY), **SETUPTOOLS["packages"]["find"])
    suffixes = {pattern.removeprefix("*") for pattern in SETUPTOOLS["package-data"]["*"]} | {".py"}
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        path = Path(name)
        folder = ".".join(path.parent.parts)
        if not folder:
            assert path.suffix in PLAIN or path.stem in (*SETUPTOOLS["py-modules"], ".pre-commit-config"), name
        elif not name.startswith(LEFT_OUT):
            assert folder in packages and path.suffix in suffixes, name
    assert not [name for name in packages if name.startswith(LEFT_OUT) or "__pycache__" in name]


def test_the_version_is_declared_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version", "dependencies"] and "version" not in PROJECT["project"]
    assert SETUPTOOLS["dynamic"]["version"] == {"attr": "settings.RELEASE"}
    assert SETUPTOOLS["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}


@pytest.mark.parametrize(("arguments", "shown"), [("runs -h", "graft runs"), ("bench -h", "bench"), ("-h", "train")])
def test_graft_runs_commands_and_comparisons(
    arguments: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PROJECT["project"]["scripts"] == {"graft": "graft:main"}
    monkeypatch.setattr("sys.argv", ["graft", *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        graft.main()
    assert ended.value.code == 0 and shown in capsys.readouterr().out
