"""requirements.txt and requirements-dev.txt: complete, ranges that were tried, and nothing below a known defect."""

from __future__ import annotations

import ast
import importlib.metadata
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from settings import REPOSITORY as ROOT
from tests.docs.documents import blocks
from training.config import TRACKERS

FLOORS = {"gradio": "6.31", "transformers": "5.23", "torch": "2.10", "brotli": "1.2.1"}
"""Versions below these have published ways to run a stranger's code or to be driven by a stranger's page."""
PACKAGES = ("plugins", "ui", "serving", "training", "models", "hub", "store")


def requirements(file: str) -> dict[str, Requirement]:
    """The requirements of a file by normalized name, without the files that it includes."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text().splitlines())
    found = [Requirement(line) for line in lines if line and not line.startswith("-r")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def imported(source: str) -> set[str]:
    """Top-level names of all imports of a source."""
    found = set[str]()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found


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
    app = [path for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")] + list(ROOT.glob("*.py"))
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
