"""A home with a version trained on a tiny base of the Generate tab, for tests that serve and change it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from errors import GraftError
from settings import REPOSITORY, Settings
from tasks import Columns, TabSpec
from tests.helpers import TAB, tiny
from training.config import TrainConfig
from training.runs.runs import Runs


def make_home(folder: Path) -> tuple[Path, str]:
    """Train a first version on a home in `folder`; returns the home and the version."""
    home = folder / "home"
    home.mkdir()
    tiny.make("llama", home / "llama")
    runs = Runs(Settings(home=home))
    run = runs.wait(runs.submit(short_run(home, "first")).id)
    assert run.state == "done" and run.version, run.result
    return home, run.version


def short_run(home: Path, name: str) -> TrainConfig:
    """Configure a run of four steps."""
    spec = TabSpec(TAB, str(home / "llama"), "causal-lm", Columns(messages="messages"))
    data = REPOSITORY / "examples" / "voice.jsonl"
    return TrainConfig.for_tab(
        spec, data, name, max_steps=4, max_length=256, evaluations=0, keep_best=False, patience=0
    )


def end_runs(home: Path) -> None:
    """Cancel every run, those that wait first, so that none outlives the test."""
    runs = Runs(Settings(home=home))
    for run in runs.list():
        with suppress(GraftError):
            runs.cancel(run.id)
