"""A home with a version trained on a tiny base of the Generate tab, for tests that serve and change it."""

from __future__ import annotations

from pathlib import Path

from settings import REPOSITORY
from tasks import Columns, TabSpec
from tests.helpers import tiny
from tests.helpers.training_helpers import run_worker
from training.config import TrainConfig

TAB = "generation"


def make_home(folder: Path) -> tuple[Path, str]:
    """Train a first version on a home in `folder`; returns the home and the version."""
    home = folder / "home"
    tiny.make("llama", home / "llama")
    result = run_worker(short_run(home, "first"), home)
    assert result["state"] == "done", result
    return home, result["version"]


def short_run(home: Path, name: str) -> TrainConfig:
    """Configure a run of four steps."""
    spec = TabSpec(TAB, str(home / "llama"), "causal-lm", Columns(messages="messages"))
    options = {"max_steps": 4, "max_length": 256, "evaluations": 0, "keep_best": False, "patience": 0}
    return TrainConfig.for_tab(spec, REPOSITORY / "examples" / "voice.jsonl", name, **options)
