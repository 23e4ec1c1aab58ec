"""serving/pool.py and models/resolve.py: versions of one tab that were made on different bases."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from errors import AdapterError, BusyError, GraftError, ModelError
from models.resolve import RECORD, Model, ModelStore, Origins, of_another_base
from serving import loaded as loading
from serving import pool as module
from serving.pool import Pool
from store.adapters import BASE, AdapterStore
from tests.helpers import tiny
from tests.helpers.answers import pool_at
from tests.helpers.load import TEXTS, Load
from tests.helpers.training_helpers import spec_of, train
from tests.helpers.versions import copy_of
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow

TAB = "classification"


class Home:
    """A tab with a version `mine@1` on its own base, and `other@1` on one of another family."""

    def __init__(self, home: Path, own: str, other: str, base: str = "") -> None:
        self.path, self.models = home, ModelStore(home / "models", offline=not base)
        self.spec = spec_of(own, Path(base) if base else tiny.make(own, home / own))
        self.other = replace(self.spec, model=str(tiny.make(other, home / other)))
        self.store = AdapterStore(home)
        train(self.spec, home, name="mine")
        train(self.other, home, name="other")

    def pool(self) -> Pool:
        return pool_at(self.path, self.models, self.spec.model)

    def name(self, pool: Pool, adapter: str = "live") -> tuple[str, str]:
        """Return the version that answers, and its base."""
        with pool.open(self.spec, adapter) as lm:
            return lm.version, lm.base


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("labels"), "bert", "roberta")


@pytest.fixture
def home(labels: Home) -> Iterator[Home]:
    """The same, with nothing live."""
    yield labels
    for path in (labels.path / "live").glob("*.json"):
        path.unlink()


def keys(pool: Pool) -> list[str]:
    return [status.id for status in pool.status()]


@pytest.mark.parametrize("families", [("bert", "roberta"), ("llama", "t5"), ("t5", "qwen2"), ("minilm", "bert")])
def test_r10_under_load_every_answer_is_that_of_the_version_it_names(
    families: tuple[str, str], tmp_path: Path, minilm: Model, models_root: Path
) -> None:
    """Decoder-only and encoder-decoder bases of one tab, and a real base beside a tiny one."""
    own, other = families
    (tmp_path / "models").symlink_to(models_root.absolute())
    home = Home(tmp_path, "bert", other, minilm.id) if own == "minilm" else Home(tmp_path, own, other)
    load = Load(home.pool(), home.spec)
    load.remember("mine@1", "other@1", BASE)
    with load.running(3):
        for ref in ("mine@1", "other@1", "", BASE, "other@1", ""):
            load.promote(ref) if ref else load.roll_back()
            load.pool._entries.let_go(0.0)
    assert set(load.seen) == set(load.sources)


@pytest.fixture
def go(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until it is set, the base of a version does not load."""
    real, found = loading.Loaded, threading.Event()

    def held_back(*given: Any, beside: bool = False) -> Any:
        assert not beside or found.wait(60)
        return real(*given, beside)

    monkeypatch.setattr(loading, "Loaded", held_back)
    return found


def test_a_new_live_version_answers_once_its_base_is_there(
    home: Home, go: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = home.pool()
    home.store.promote(TAB, "mine@1")
    assert home.name(pool) == ("mine@1", home.spec.model)
    home.store.promote(TAB, "other@1")
    pool.warm(home.spec)
    with pool.open(home.spec) as lm:
        assert lm.version == "mine@1" and "its base roberta is still loading; until then mine@1 answers" in lm.notes[0]
    until(lambda: pool.status()[1].phase == "load")
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    with pytest.raises(BusyError, match="still loading"):
        pool.check(home.spec, "other@1")
    go.set()
    until(lambda: pool.status()[1].phase == "ready")
    with pool.open(home.spec) as lm:
        assert (lm.version, lm.base, lm.notes) == ("other@1", "roberta", [])
    home.store.roll_back(TAB)
    assert home.name(pool) == ("mine@1", home.spec.model)


def test_the_first_request_waits_where_nothing_has_answered_yet(home: Home, go: threading.Event) -> None:
    home.store.promote(TAB, "other@1")
    pool, found = home.pool(), list[tuple[str, str]]()
    thread = threading.Thread(target=lambda: found.append(home.name(pool)))
    thread.start()
    until(lambda: len(pool.status()) == 2 and pool.status()[1].phase == "load")
    assert found == []
    go.set()
    thread.join()
    assert found == [("other@1", "roberta")]


def test_a_base_that_nothing_needs_is_let_go(home: Home) -> None:
    pool, own, other = home.pool(), home.spec.model, home.other.model
    with pool.open(home.spec, "other@1") as lm:
        pool._entries.let_go(0.0)
        assert lm.version == "other@1" and keys(pool) == [own, other], "a request is answered by it"
    pool._entries.let_go()
    assert keys(pool) == [own, other], "the one that was used last stays a while"
    pool._entries.let_go(0.0)
    assert keys(pool) == [own]
    home.store.promote(TAB, "other@1")
    assert home.name(pool) == ("other@1", "roberta")
    pool._entries.let_go(0.0)
    assert keys(pool) == [own, other], "it is live"
    home.store.roll_back(TAB)
    pool.warm(home.spec)
    pool._entries.let_go(0.0)
    assert keys(pool) == [own]


def test_one_base_that_nothing_needs_is_kept(home: Home, tmp_path: Path) -> None:
    version = train(replace(home.spec, model=str(tiny.make("distilbert", tmp_path / "third"))), home.path, name="third")
    pool = home.pool()
    for ref in ("other@1", version.ref, "other@1"):
        assert home.name(pool, ref)[0] == ref
    assert keys(pool) == [home.spec.model, home.other.model]


def test_a_base_that_does_not_fit_leaves_what_answered(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = home.pool()
    assert home.name(pool) == (BASE, home.spec.model)
    monkeypatch.setattr("models.loading.MEMORY_RESERVE", 10**15)  # of any memory, a GPU's too
    with pytest.raises(ModelError, match="no room for"):
        pool.check(home.spec, "other@1")
    home.store.promote(TAB, "other@1")
    with pool.open(home.spec):
        until(lambda: pool.status()[-1].phase == "failed")
    with pool.open(home.spec) as lm:
        assert lm.version == BASE and "no room for" in lm.notes[0]
    home.store.roll_back(TAB)
    pool.warm(home.spec)
    assert keys(pool) == [home.spec.model], "what failed is forgotten with the need for it"
    monkeypatch.undo()
    assert home.name(pool, "other@1")[0] == "other@1"


def test_given_labels_are_answered_by_the_tabs_own_base(home: Home) -> None:
    pool = home.pool()
    with pool.open(home.spec, BASE) as lm:
        wanted = lm.classify(TEXTS[0], ["praise", "delay"])
    with pool.open(home.spec, "other@1") as lm:
        lm.classify(TEXTS[0])
        assert (lm.version, lm.base) == ("other@1", "roberta")
        assert lm.classify(TEXTS[0], ["praise", "delay"]) == pytest.approx(wanted)
        assert (lm.version, lm.base) == (BASE, home.spec.model)


def test_one_base_under_two_names_is_loaded_once(home: Home) -> None:
    pool = home.pool()
    home.name(pool, "other@1")
    pool.declare(f"{home.path}/./roberta")
    until(lambda: pool.status()[-1].phase == "ready")
    assert len({id(loaded) for loaded in pool._entries.loaded()}) == 2 and len(pool.status()) == 3


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ({"id": "../roberta", "source": "hub"}, "no Hub id"),
        ({"id": "{home}/roberta", "source": "folder"}, "nobody has said where it lies"),
        ({"id": "{home}/roberta", "source": "hub"}, "no Hub id"),
        ({"id": "./roberta", "source": "hub", "revision": "a" * 40}, "no Hub id"),
        ({"id": "elsewhere", "source": "folder"}, "nobody has said where it lies"),
        ({"id": "org/model", "source": "hub", "revision": ""}, "org/model is not available"),
    ],
)
def test_r16_the_base_in_a_foreign_manifest_is_never_read_as_a_path(
    home: Home, base: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is a folder looked into that lies here under the id of a base of the Hub."""
    (home.path / "org").mkdir(exist_ok=True)
    tiny.make("roberta", home.path / "org" / "model")
    monkeypatch.chdir(home.path)
    base = {key: value.format(home=home.path) for key, value in base.items()}
    source = home.store.get("other@1")
    manifest = {**source.manifest, "base": {**base, "identity": "0" * 16, "shape_id": ""}}
    version = copy_of(replace(source, manifest=manifest), home.path, "foreign")
    with pytest.raises(GraftError, match=why):
        home.name(home.pool(), version.ref)


def test_weights_that_changed_under_a_folder_are_refused(home: Home, tmp_path: Path) -> None:
    base = tiny.make("roberta", tmp_path / "moving", seed=7)
    version = train(replace(home.spec, model=str(base)), home.path, name="moving")
    tiny.make("roberta", base, seed=9)
    with pytest.raises(AdapterError, match="has other weights"):
        home.name(home.pool(), version.ref)


def test_a_base_is_looked_for_where_it_was_noted_or_named(home: Home, tmp_path: Path) -> None:
    version = home.store.get("other@1")
    assert Origins(home.path).id_of(version) == home.other.model
    moved = Origins(tmp_path, [str(tiny.make("roberta", tmp_path / "elsewhere" / "roberta"))])
    assert moved.id_of(version) == str(tmp_path / "elsewhere" / "roberta"), "the operator's setting"
    own = home.models.resolve(home.spec.model)
    assert Origins(home.path).id_of(home.store.get("mine@1"), home.spec.model, own) == home.spec.model
    noted = json.loads((home.path / RECORD).read_text())
    assert len({entry["path"] for entry in noted}) == len(noted)
    hub = replace(version, manifest={**version.manifest, "base": {"id": "org/m", "revision": "b" * 40}})
    assert Origins(home.path).id_of(hub, "org/other") == f"org/m@{'b' * 40}"
    assert Origins(home.path).id_of(hub, "org/m") == "org/m"
    assert of_another_base(hub, "org/other") and not of_another_base(hub, "org/m@main")
    assert of_another_base(version, home.spec.model) and not of_another_base(version, home.other.model)
