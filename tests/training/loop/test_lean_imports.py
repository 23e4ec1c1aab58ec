"""training/loop/lean_imports.py: a run's process imports only the installed libraries that it needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from settings import REPOSITORY, child_environment
from tests.helpers import tiny
from tests.helpers.training_helpers import config_of, run_folder, spec_of
from training.loop import lean_imports
from training.loop.lean_imports import QUANTIZING, UNUSED

pytestmark = pytest.mark.slow

LARGE = [*UNUSED, QUANTIZING, "pandas", "datasets", "nltk"]
RUN = f"""
import sys
from pathlib import Path
from training.runs.child import work
code = work(Path(sys.argv[1]))
print([name for name in {LARGE} if sys.modules.get(name)])
sys.exit(code)
"""


def make_run(home: Path, **chosen: object) -> Path:
    return run_folder(config_of(spec_of("bert", tiny.make("bert", home / "bert")), home, "lean", **chosen), home)


def test_a_plain_run_of_a_classifier_imports_no_large_library(tmp_path: Path) -> None:
    command, env = [sys.executable, "-c", RUN, str(make_run(tmp_path))], child_environment(GRAFT_HOME=str(tmp_path))
    child = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines()[-1] == "[]"


def test_a_quantized_or_unreadable_run_keeps_bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked: list[str] = []
    monkeypatch.setattr(lean_imports, "block_modules", lambda *names: blocked.extend(names))
    lean_imports.block_unused(tmp_path)
    assert blocked == []
    lean_imports.block_unused(make_run(tmp_path, quantize="4bit"))
    assert blocked == [*UNUSED]
