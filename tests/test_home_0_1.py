"""A home that 0.1.0 made opens, answers, rolls back and goes on: see tests/homes/0.1.0/README.md.

Each test has a copy of its own at another place. Nothing of what lies in tests/homes is ever made again or changed: a
release that cannot open it would lose what people have.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.servers import serve_app
from models.resolve import ModelStore
from plugins._discovery import discover
from serving.pool import Pool
from settings import HOME_RECORD, REPOSITORY, Settings
from store import files
from store.adapters import AdapterStore
from store.corrections import Corrections
from tasks import Columns
from tests.helpers.run_helpers import end_all
from training.events import read_events
from training.runs.runs import Runs

pytestmark = pytest.mark.slow

MADE = REPOSITORY / "tests" / "homes" / "0.1.0"
PLACE = "/srv/graft-0.1.0"
"""Beginning of its absolute paths: the folder in which it was made."""
RECORDED: dict[str, Any] = json.loads((MADE / "answers.json").read_text(encoding="utf-8"))
BASES = {"classification": "bert", "generation": "llama", "headline": "llama"}


def copy_to(place: Path) -> Settings:
    """Copy the home, its bases and plugins to `place`, as if 0.1.0 had made them there with the installed libraries."""
    for name in ("home", "bases", "plugins"):
        shutil.copytree(MADE / name, place / name)
    for path in place.rglob("*.json*"):
        text = path.read_text(encoding="utf-8")
        if PLACE in text:
            path.write_text(text.replace(PLACE, str(place)), encoding="utf-8")
    bind_to_libraries(place / "home")
    models = {tab: str(place / "bases" / base) for tab, base in BASES.items()}
    exact = {"quantize": "none", "precision": "float32"}
    return Settings(home=place / "home", plugins=place / "plugins", offline=True, models=models, **exact)


def bind_to_libraries(home: Path) -> None:
    """Write the versions of the installed libraries into the checkpoint, which only they may go on from.

    The key of its data is a hash of facts that name them too; 0.1.0 wrote it as it is written here.
    """
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "tokenizers", "peft")}
    facts = RECORDED["data_of_the_paused_run"]["facts"] | {
        "libraries": [versions["tokenizers"], versions["transformers"]]
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    bound = {"data": key, **{name: versions[name] for name in ("torch", "transformers", "peft")}}
    for path in home.glob("runs/*/checkpoints/*/state.json"):
        state = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(state | {"bound": state["bound"] | bound}), encoding="utf-8")


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return copy_to(tmp_path / "moved")


@pytest.fixture
def its_runs(old: Settings) -> Iterator[Runs]:
    found = Runs(old)
    yield found
    end_all(found)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, Pool]:
    """A copy whose bases are in memory, for tests that only ask."""
    settings = copy_to(tmp_path_factory.mktemp("opened") / "moved")
    pool = Pool(settings, ModelStore(settings.home / "models", True), AdapterStore(settings.home, settings.shipped))
    for base in {*settings.models.values()}:
        pool.declare(base)
    return settings, pool


def test_versions_of_0_1_are_listed_and_whole(old: Settings) -> None:
    versions = AdapterStore(old.home, old.shipped).versions()
    assert {version.ref: version.plugin for version in versions} == RECORDED["versions"]
    for version in versions:
        version.check_files()
    assert {version.ref for version in versions if version.card} == set(RECORDED["versions"]) - {"theirs@1"}
    damaged = old.home / "adapters" / "tickets" / "1" / "card.json"
    damaged.write_text(damaged.read_text().replace("0", "1", 1))
    with pytest.raises(Exception, match=r"card\.json is missing, cut short or changed"):
        AdapterStore(old.home).get("tickets@1").check_files()


@pytest.mark.parametrize("number", range(len(RECORDED["answers"])))
def test_tabs_answer_with_the_versions_of_0_1_as_0_1_did(opened: tuple[Settings, Pool], number: int) -> None:
    """Asked through the tabs of 0.1.0, which its users have copied and changed, so that the contract is held too."""
    (settings, pool), recorded = opened, RECORDED["answers"][number]
    plugin = next(tab.plugin for tab in discover(settings.plugins) if tab.name == recorded["tab"])
    assert plugin is not None
    with pool.open(plugin.spec(settings.models), recorded["adapter"]) as lm:
        answer = plugin.predict(lm, *recorded["asked"])
        if plugin.streams():
            *_, answer = answer
        assert lm.version == recorded["version"] and lm.notes == []
    assert answer == (pytest.approx(recorded["answer"], abs=1e-4) if isinstance(answer, dict) else recorded["answer"])


def test_a_plugin_file_of_0_1_is_a_tab_that_answers(opened: tuple[Settings, Pool]) -> None:
    settings, pool = opened
    tab = next(tab for tab in discover(settings.plugins) if tab.path.name == "headline.py")
    assert tab.error is None and tab.plugin is not None, tab.error
    assert (tab.name, tab.title) == ("headline", "Headline")
    spec = tab.plugin.spec()
    assert (spec.model, spec.task) == ("HuggingFaceTB/SmolLM2-135M-Instruct", "causal-lm")
    assert spec.columns == Columns(text="text", target="headline")
    assert spec.prompt == "Write one short headline for this text.\n\n{text}" and spec.learns
    with pool.open(tab.plugin.spec(settings.models)) as lm:
        *_, headline = tab.plugin.predict(lm, "The library opens on Sundays from May on.")
    assert isinstance(headline, str) and lm.version == "base"


def test_the_history_of_0_1_is_read_and_rolled_back(old: Settings) -> None:
    store = AdapterStore(old.home, old.shipped)
    assert {tab: store.history(tab) for tab in RECORDED["history"]} == RECORDED["history"]
    live = store.live("classification")
    assert live is not None and live.ref == "tickets@1"
    store.promote("classification", "tickets@3")
    assert [store.roll_back("classification") for _ in range(3)] == ["tickets@1", "sentiment@1", "base"]
    assert len(store.history("classification")) == len(RECORDED["history"]["classification"]) + 4
    assert store.roll_back("generation") == "base" and store.live("generation") is None


def test_corrections_of_0_1_are_read_and_another_is_kept_beside_them(old: Settings) -> None:
    kept = Corrections(old.home)

    def listed() -> list[dict[str, str]]:
        found = kept.list("classification")
        return [{"asked": one.question, "target": one.target, "taught": one.taught} for one in found]

    assert listed() == RECORDED["corrections"] and len(listed()) == 3
    kept.add("classification", {"text": "It froze.", "target": "bug"}, "praise", "tickets@1")
    assert listed() == [{"asked": "It froze.", "target": "bug", "taught": ""}, *RECORDED["corrections"]]
    kept.undo("classification")
    kept.undo("classification")
    targets = {one["asked"]: one["target"] for one in listed()}
    assert targets["You charged my card twice."] == "bug", "as it was before it was edited"


def test_runs_of_0_1_are_listed_with_their_states_and_cards(old: Settings, its_runs: Runs) -> None:
    found = its_runs.list()
    names = ("id", "state", "name", "plugin", "data", "version", "metric", "figure", "teaches")
    listed = {run.id: {name: getattr(run, name) for name in names} | {"steps": run.progress.step} for run in found}
    assert listed == {run["id"]: run for run in RECORDED["runs"]}
    for run in found:
        assert run.config.plugin == run.plugin and (run.resumable == (run.state == "paused"))
        if run.state == "done":
            assert run.result["card"] == AdapterStore(old.home).get(str(run.version)).card
            assert run.result["card"]["gate"]["why"] and run.progress.curves["loss"]
    failed = next(run for run in found if run.state == "failed")
    assert "has no layer named nowhere" in failed.result["why"] and "Traceback" in " ".join(failed.log_tail(30))


def test_a_run_that_0_1_paused_goes_on_and_publishes_its_version(old: Settings, its_runs: Runs) -> None:
    paused = next(run for run in its_runs.list() if run.state == "paused")
    stopped = paused.result
    its_runs.resume(paused.id)
    ended = its_runs.wait(paused.id)
    assert (ended.state, ended.version) == ("done", "later@1"), ended.result
    went_on = [event["step"] for event in read_events(ended.folder) if event["kind"] == "resume"]
    assert went_on == [stopped["step"]] and 0 < stopped["step"] < stopped["steps"]
    assert [step for step, _ in ended.progress.curves["loss"]] == list(range(1, stopped["steps"] + 1))
    version = AdapterStore(old.home).get("later@1")
    version.check_files()
    assert version.manifest["measured"]["steps"] == stopped["steps"]
    assert version.card["new"]["accuracy"] > version.card["base"]["accuracy"]


def test_the_page_starts_on_a_home_of_0_1_and_answers(old: Settings) -> None:
    variables = {f"GRAFT_MODEL_{tab.upper()}": base for tab, base in old.models.items()}
    variables |= {"GRAFT_PLUGINS": str(old.plugins), "GRAFT_QUANTIZE": old.quantize, "GRAFT_PRECISION": old.precision}
    recorded = next(one for one in RECORDED["answers"] if one["adapter"] == "live")
    with serve_app(old.home, {}, **variables) as server:
        answer, badge = server.client().predict(*recorded["asked"], "", api_name="/classification")
    found = {one["label"]: one["confidence"] for one in answer["confidences"]}
    assert found == pytest.approx(recorded["answer"], abs=1e-4) and badge["version"] == recorded["version"]
    assert files.read_json(old.home / HOME_RECORD)["format"] == 1, "the format of 0.1 is the first"
