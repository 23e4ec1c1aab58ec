"""What a run's process holds of the libraries that are installed: those that the run needs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from settings import REPOSITORY, child_environment
from tests.helpers import tiny
from tests.helpers.training_helpers import config_of, spec_of
from training.events import CONFIG
from training.loop.lean_imports import QUANTIZING, UNUSED, leave_out, unneeded

LARGE = [*UNUSED, QUANTIZING, "pandas", "datasets", "nltk"]
RUN = f"""
import sys
from pathlib import Path
from training.runs.child import work
code = work(Path(sys.argv[1]))
print([name for name in {LARGE} if sys.modules.get(name)])
sys.exit(code)
"""


def written(home: Path, **chosen: object) -> Path:
    folder = home / "runs" / "lean"
    folder.mkdir(parents=True)
    spec = spec_of("bert", tiny.make("bert", home / "bert"))
    (folder / CONFIG).write_text(config_of(spec, home, "lean", **chosen).to_json())
    return folder


def test_a_plain_run_of_a_classifier_holds_none_of_the_large_ones(tmp_path: Path) -> None:
    folder = written(tmp_path)
    command, env = [sys.executable, "-c", RUN, str(folder)], child_environment(GRAFT_HOME=str(tmp_path))
    child = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines()[-1] == "[]"


def test_a_quantized_run_keeps_what_it_quantizes_with(tmp_path: Path) -> None:
    assert unneeded(written(tmp_path, quantize="4bit")) == [*UNUSED]


def test_a_run_that_cannot_be_read_leaves_nothing_out(tmp_path: Path) -> None:
    assert unneeded(tmp_path) == []


def test_what_is_already_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path)
    monkeypatch.setattr(sys, "modules", {"scipy": subprocess})
    leave_out(folder)
    assert sys.modules["scipy"] is subprocess and sys.modules["sklearn"] is None
