"""docs/architecture.md: the modules of its four walks are those that a profiler sees (tests/flows.py)."""

import re
import subprocess
import sys

import pytest

from tests.flows import FLOWS, ROOT

MOST = {"classify": 14, "token": 18, "promote": 12}
"""Modules that somebody may have to open to follow a flow."""


@pytest.mark.slow
def test_the_walks_name_the_modules_that_run() -> None:
    command = [sys.executable, "-m", "tests.flows"]
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    blocks = re.findall(r"^(\w+): (\d+)\n((?:  \S+\n)+)", printed, re.MULTILINE)
    found = {name: set(modules.split()) for name, _, modules in blocks}
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lists = re.findall(r"<!-- flow: (\w+) -->\n```\n(.*?)```", page, re.DOTALL)
    documented = {name: set(text.split()) for name, text in lists}
    assert set(found) == set(FLOWS) and set(documented) == {"csv", *MOST}
    assert {name: documented[name] for name in MOST} == {name: found[name] for name in MOST}
    assert documented["csv"] <= found["csv"], "those that work on rows and weights"
    assert [name for name, most in MOST.items() if len(found[name]) > most] == []
