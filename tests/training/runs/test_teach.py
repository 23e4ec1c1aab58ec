"""training/runs/teach.py: the plan of a lesson for each kind of version, and lessons of the real worker."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from errors import RunError
from settings import Settings
from store.adapters import WEIGHTS, AdapterStore, Version
from store.corrections import Corrections
from tasks import Columns, TabSpec
from tests.conftest import Trained
from tests.helpers.run_helpers import STAND_IN, end_all
from tests.helpers.training_helpers import config_of, run_worker
from training.config import TrainConfig
from training.events import CORRECTIONS, PAUSE
from training.runs.runs import Runs
from training.runs.teach import REPLAY_ROWS, find_config, lessons, plan, teach

pytestmark = pytest.mark.slow

QUICK = {"max_steps": 4, "learning_rate": 5e-2}
"""Settings for the tiny base, whose weights are random."""


class Tab:
    """A home with a live version of the tiny base, and corrections."""

    def __init__(self, trained: Trained, home: Path, name: str = "mine") -> None:
        self.home, self.spec = home, trained.spec
        self.settings = Settings(home=home, shipped=home / "none")
        self.store, self.kept, self.runs = AdapterStore(home), Corrections(home), Runs(self.settings, STAND_IN)
        result = run_worker(config_of(self.spec, home, name, promote=True, held_out=0.4), home)
        self.version: Version = self.store.get(result["version"])
        self.store.promote(self.spec.name, self.version.ref)

    def correct(self, *pairs: tuple[str, str]) -> None:
        for text, target in pairs:
            self.kept.add(self.spec.name, {"text": text, "target": target}, "wrong", self.version.ref)

    def plan(self) -> tuple[TrainConfig, str]:
        return plan(self.settings, self.runs, self.spec, self.kept.list(self.spec.name))

    def teach(self, config: TrainConfig, id: str = "lesson") -> dict:
        """The lesson with its corrections in a file, by the worker in this process."""
        path = self.home / "corrections.jsonl"
        rows = [{"id": one.id, **one.row} for one in self.kept.list(self.spec.name)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return run_worker(replace(config, corrections=str(path), **QUICK), self.home, id)


@pytest.fixture
def tab(bert: Trained, home: Path) -> Tab:
    return Tab(bert, home)


def test_a_lesson_trains_on_from_the_live_version_beside_its_own_rows(tab: Tab) -> None:
    tab.correct(("a purple sentence", "1"), ("purple once more", "1"), ("so purple", "1"))
    (config, warning), own = tab.plan(), find_config(tab.version, tab.runs)
    assert warning == ""
    assert own and tab.version.manifest["run"] == "mine"
    assert (config.start_from, config.data, config.replay_rows) == (tab.version.ref, own.data, REPLAY_ROWS)
    assert (config.seed, config.held_out, config.prompt) == (own.seed, own.held_out, own.prompt)
    assert 1 < config.correction_weight <= 20 and config.promote

    result = tab.teach(config)
    card, new = result["card"], tab.store.get(result["version"])
    assert new.ref == "mine@2" and card["live_ref"] == "mine@1" and card["held_out"] == tab.version.card["held_out"]
    assert card["corrections"]["rows"] == 3 and card["corrections"]["before"] is not None
    assert {row["text"] for row in card["rows"]} == {row["text"] for row in tab.version.card["rows"]}
    assert {one.taught for one in tab.kept.list(tab.spec.name)} == {new.ref}
    assert new.manifest["data"]["corrections"] == 3 and "corrections" not in new.manifest["config"]

    # The next one begins from there, with the same rows held out, and goes through these corrections again.
    tab.store.promote(tab.spec.name, new.ref)
    tab.correct(("a green sentence", "0"))
    again, _ = tab.plan()
    assert (again.start_from, again.data) == (new.ref, own.data)
    assert tab.teach(again, "second")["card"]["held_out"] == card["held_out"]


def test_a_lesson_that_was_paused_and_resumed_is_the_same(tab: Tab) -> None:
    tab.correct(("a purple sentence", "1"), ("so purple", "0"))
    config = replace(tab.plan()[0], promote=False)
    straight = tab.store.get(tab.teach(config)["version"])
    folder = tab.home / "runs" / "halves"
    folder.mkdir()
    (folder / PAUSE).touch()
    assert tab.teach(config, "halves")["state"] == "paused"
    (folder / PAUSE).unlink()
    resumed = tab.store.get(tab.teach(config, "halves")["version"])
    one, other = (load_file(version.path / WEIGHTS) for version in (straight, resumed))
    assert one.keys() == other.keys() and all((one[name] == other[name]).all() for name in one)


def test_a_person_decides_on_a_lesson_without_the_rows_of_the_version(tab: Tab) -> None:
    with (tab.home / "mine.csv").open("a") as file:
        file.write("one more,0\n")
    assert find_config(tab.version, tab.runs) is None, "its rows have changed"
    shutil.rmtree(tab.home / "runs")
    tab.correct(("a purple sentence", "1"))
    config, warning = tab.plan()
    assert "mine@1" in warning and "a person decides" in warning
    assert (config.data, config.start_from) == ("", "mine@1")
    result = tab.teach(config)
    assert result["card"]["alone"] and not result["card"]["gate"]["pass"] and not result["promoted"]
    assert tab.store.get(result["version"]).labels == ["0", "1"]
    tab.correct(("never seen", "2"))
    with pytest.raises(RunError, match="does not know 2"):
        tab.plan()


def test_a_new_label_learns_everything_again(tab: Tab) -> None:
    tab.correct(("never seen", "2"))
    config, warning = tab.plan()
    assert config.start_from == "" and config.replay_rows == 0 and "2 is new" in warning
    assert tab.store.get(tab.teach(config)["version"]).labels == ["0", "1", "2"]


def test_a_base_learns_from_corrections_alone_if_they_tell_something_apart(home: Path) -> None:
    spec = TabSpec("classification", "org/base", "text-classification", Columns(text="text", target="label"))
    settings, kept = Settings(home=home, shipped=home / "none"), Corrections(home)
    runs = Runs(settings, STAND_IN)
    with pytest.raises(RunError, match="nothing to teach"):
        teach(settings, runs, spec)
    kept.add("classification", {"text": "one", "target": "a"})
    with pytest.raises(RunError, match="All corrections say a"):
        teach(settings, runs, spec)
    kept.add("classification", {"text": "two", "target": "b"})
    try:
        run, warning = teach(settings, runs, spec)
        assert "No version answers" in warning and run.name == "taught" and run.teaches and run.data
        assert Path(run.config.corrections).parent == run.folder / CORRECTIONS
        assert [one.id for one in lessons(runs, "classification")] == [run.id] and lessons(runs, "other") == []
        with pytest.raises(RunError, match="goes on already"):
            teach(settings, runs, spec)
    finally:
        end_all(runs)


def test_texts_are_learned_and_counted_too(llama: Trained, home: Path) -> None:
    tab = Tab(llama, home)
    tab.correct(("notes of a new kind", "a new kind of summary"))
    config, _ = tab.plan()
    assert config.start_from == "mine@1" and config.prompt == tab.spec.prompt
    card = tab.teach(config)["card"]
    assert card["corrections"]["rows"] == 1 and card["held_out"] == tab.version.card["held_out"]
