"""pyproject.toml and requirements.lock: all that is imported or read is installed, and CI has the versions pinned."""

from __future__ import annotations

import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import find_namespace_packages

import graft
from settings import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LEFT_OUT = ("tests", "docs", ".ci")
"""Folders that stay in the repository."""
PLAIN = {".md", ".toml", ".txt", ".lock", ""}
"""Suffixes of files at the top that are not installed."""


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return listed.stdout.splitlines()


def test_every_file_of_the_product_is_installed() -> None:
    packages = find_namespace_packages(str(REPOSITORY), **SETUPTOOLS["packages"]["find"])
    suffixes = {pattern.removeprefix("*") for pattern in SETUPTOOLS["package-data"]["*"]} | {".py"}
    for name in tracked():
        path = REPOSITORY / name
        folder = ".".join(path.relative_to(REPOSITORY).parent.parts)
        if not folder:
            assert path.suffix in PLAIN or path.stem in (*SETUPTOOLS["py-modules"], ".pre-commit-config"), name
        elif not name.startswith(LEFT_OUT):
            assert folder in packages and path.suffix in suffixes, name
    assert not [name for name in packages if name.startswith(LEFT_OUT) or "__pycache__" in name]


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["project"]["dynamic"] == ["version", "dependencies"] and "version" not in PROJECT["project"]
    assert SETUPTOOLS["dynamic"] == {
        "version": {"attr": "settings.RELEASE"},
        "dependencies": {"file": ["requirements.txt"]},
    }


def test_the_lock_pins_what_the_requirements_allow() -> None:
    pins = dict(line.split("==") for line in lines_of("requirements.lock"))
    wanted = [Requirement(line) for file in ("requirements.txt", "requirements-dev.txt") for line in lines_of(file)]
    for one in wanted:
        assert one.specifier.contains(pins[canonicalize_name(one.name)]), one
    assert len(pins) > len(wanted) > 30
    assert not [version for version in pins.values() if "+" in version], "an index may have none of a local version"


def lines_of(file: str) -> list[str]:
    lines = [line.partition("#")[0].strip() for line in (REPOSITORY / file).read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("-")]


def test_graft_runs_commands_and_comparisons(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert PROJECT["project"]["scripts"] == {"graft": "graft:main"}
    for arguments, shown in (
        (["runs", "--help"], "graft runs"),
        (["bench", "--help"], "bench"),
        (["-h"], "graft train"),
    ):
        monkeypatch.setattr("sys.argv", ["graft", *arguments])
        with pytest.raises(SystemExit) as ended:
            graft.main()
        assert ended.value.code == 0 and shown in capsys.readouterr().out
