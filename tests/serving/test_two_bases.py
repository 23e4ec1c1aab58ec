"""pool.py, base_cache.py and resolve.py: versions of one tab that were made on different bases."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from errors import AdapterError, BusyError, ModelError
from models import memory_use
from models.resolve import RECORD, Model, ModelStore, Origins, of_another_base
from serving import loaded as loading
from serving import pool as module
from serving.lm import LM
from serving.pool import Pool
from store.adapters import BASE, AdapterStore, Version
from tests.helpers import tiny
from tests.helpers.answers import Ask, ask_labels, ask_text, pool_at, same, under_load, wait_for_answer
from tests.helpers.training_helpers import spec_of, train
from tests.helpers.versions import copy_of
from tests.helpers.waiting import until

TEXTS = ("where is my parcel", "thank you, well done")
CALLERS = 3


class Home:
    """A tab whose own base is of one family, and a version each on that base and on one of another family."""

    def __init__(self, home: Path, own: str, other: str, base: str | None = None) -> None:
        self.path, self.models = home, ModelStore(home / "models", offline=True)
        self.spec = spec_of(own, Path(base) if base else tiny.make(own, home / own))
        if base:
            self.spec = replace(self.spec, model=base)
        self.other = replace(self.spec, model=str(tiny.make(other, home / other)))
        self.store = AdapterStore(home)

    def train(self) -> Home:
        """`mine@1` on the tab's own base, `other@1` on the other."""
        train(self.spec, self.path, name="mine")
        train(self.other, self.path, name="other")
        return self

    def pool(self) -> Pool:
        found = pool_at(self.path, self.models)
        found.declare(self.spec.model)
        return found

    def keys(self, pool: Pool) -> list[str]:
        return [status.id for status in pool.status()]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    yield Home(tmp_path_factory.mktemp("labels"), "bert", "roberta").train()


@pytest.fixture
def home(labels: Home) -> Iterator[Home]:
    """The same, with nothing live."""
    yield labels
    for path in (labels.path / "live").glob("*.json"):
        path.unlink()


def name(pool: Pool, home: Home, adapter: str = "live") -> tuple[str, str]:
    with pool.open(home.spec, adapter) as lm:
        return lm.version, lm.base


@pytest.mark.parametrize("families", [("bert", "roberta"), ("llama", "t5"), ("t5", "qwen2")])
def test_r10_under_load_every_answer_is_that_of_the_version_it_names(families: tuple[str, str], tmp_path: Path) -> None:
    """Decoder-only and encoder-decoder bases of one tab, while promotes and roll backs go back and forth."""
    swap(Home(tmp_path, *families).train(), ask_labels if families[0] == "bert" else ask_text)


def test_a_real_base_beside_a_tiny_one(minilm: Model, models_root: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(models_root.absolute())
    found = Home(tmp_path, "bert", "bert", base=minilm.id)
    found.models = ModelStore(models_root)
    swap(found.train(), ask_labels)


def swap(home: Home, ask: Ask) -> None:
    pool, tab = home.pool(), home.spec.name
    versions, bases = ("mine@1", "other@1", BASE), {BASE: home.spec.model, "mine@1": home.spec.model}
    bases["other@1"] = Path(home.other.model).name
    golden = {}
    for ref in versions:
        for text in TEXTS:
            with pool.open(home.spec, ref) as lm:
                golden[ref, text] = ask(lm, text)
    assert len({str(golden[ref, TEXTS[0]]) for ref in versions}) == 3, "the versions must differ"

    def right(lm: LM, text: str, found: Any) -> bool:
        return same(found, golden[lm.version, text]) and lm.base == bases[lm.version]

    with under_load(pool, home.spec, ask, right, TEXTS, CALLERS) as seen:
        # mine, other, back to mine, the base, other, back to the base
        for i, ref in enumerate(("mine@1", "other@1", None, BASE, "other@1", None)):
            _ = home.store.promote(tab, ref) if ref else home.store.roll_back(tab)
            pool.warm(home.spec)
            if i % 2:
                pool._entries.let_go(0.0)
            live = home.store.live(tab)
            wait_for_answer(seen, live.ref if live else BASE)
    assert set(seen) == set(versions)


def test_a_new_live_version_answers_once_its_base_is_there(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, go = home.pool(), threading.Event()
    home.store.promote("classification", "mine@1")
    assert name(pool, home) == ("mine@1", home.spec.model)
    slow(monkeypatch, go)
    home.store.promote("classification", "other@1")
    pool.warm(home.spec)
    with pool.open(home.spec) as lm:
        assert lm.version == "mine@1" and "its base roberta is still loading; until then mine@1 answers" in lm.notes[0]
    until(lambda: pool.status()[1].phase == "load")
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    with pytest.raises(BusyError, match="still loading"), pool.open(home.spec, "other@1"):
        pass
    go.set()
    until(lambda: pool.status()[1].phase == "ready")
    with pool.open(home.spec) as lm:
        assert (lm.version, lm.base, lm.notes) == ("other@1", "roberta", [])
    home.store.roll_back("classification")
    assert name(pool, home) == ("mine@1", home.spec.model)


def test_the_first_request_waits_where_nothing_has_answered_yet(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    home.store.promote("classification", "other@1")
    slow(monkeypatch, go)
    pool, found = home.pool(), list[tuple[str, str]]()
    thread = threading.Thread(target=lambda: found.append(name(pool, home)))
    thread.start()
    until(lambda: len(pool.status()) == 2 and pool.status()[1].phase == "load")
    assert found == []
    go.set()
    thread.join()
    assert found == [("other@1", "roberta")]


def slow(monkeypatch: pytest.MonkeyPatch, go: threading.Event) -> None:
    """The base of a version takes as long to load as `go` says."""
    real = loading.Loaded

    def held_back(*given: Any, beside: bool = False) -> Any:
        assert not beside or go.wait(60)
        return real(*given, beside)

    monkeypatch.setattr(loading, "Loaded", held_back)


def test_a_base_that_nothing_needs_is_let_go(home: Home) -> None:
    pool, own, other = home.pool(), home.spec.model, home.other.model
    with pool.open(home.spec, "other@1") as lm:
        pool._entries.let_go(0.0)
        assert lm.version == "other@1" and home.keys(pool) == [own, other], "a request is answered by it"
    pool._entries.let_go()
    assert home.keys(pool) == [own, other], "the one that was used last stays a while"
    pool._entries.let_go(0.0)
    assert home.keys(pool) == [own]
    home.store.promote("classification", "other@1")
    assert name(pool, home) == ("other@1", "roberta")
    pool._entries.let_go(0.0)
    assert home.keys(pool) == [own, other], "it is live"
    home.store.roll_back("classification")
    pool.warm(home.spec)
    pool._entries.let_go(0.0)
    assert home.keys(pool) == [own]


def test_one_base_that_nothing_needs_is_kept(home: Home, tmp_path: Path) -> None:
    third = replace(home.spec, model=str(tiny.make("distilbert", tmp_path / "third")))
    version = train(third, home.path, name="third")
    pool = home.pool()
    for ref in ("other@1", version.ref, "other@1"):
        assert name(pool, home, ref)[0] == ref
    assert home.keys(pool) == [home.spec.model, home.other.model]


def test_a_base_that_does_not_fit_leaves_what_answered(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = home.pool()
    assert name(pool, home) == (BASE, home.spec.model)
    monkeypatch.setattr(memory_use, "SPARE", 10**15)  # of any memory, a GPU's too
    with pytest.raises(ModelError, match="no room for"):
        pool.check(home.spec, "other@1")
    home.store.promote("classification", "other@1")
    with pool.open(home.spec) as lm:
        until(lambda: pool.status()[-1].phase == "failed")
    with pool.open(home.spec) as lm:
        assert lm.version == BASE and "no room for" in lm.notes[0]
    home.store.roll_back("classification")
    pool.warm(home.spec)
    assert home.keys(pool) == [home.spec.model], "what failed is forgotten with the need for it"
    monkeypatch.undo()
    assert name(pool, home, "other@1")[0] == "other@1"


def test_given_labels_are_answered_by_the_tabs_own_base(home: Home) -> None:
    pool = home.pool()
    with pool.open(home.spec, BASE) as lm:
        wanted = lm.classify(TEXTS[0], ["praise", "delay"])
    with pool.open(home.spec, "other@1") as lm:
        assert lm.classify(TEXTS[0], ["praise", "delay"]) == pytest.approx(wanted)
        assert (lm.version, lm.base) == (BASE, home.spec.model)
    with pool.open(home.spec, "other@1") as lm:
        lm.classify(TEXTS[0])
        assert (lm.version, lm.base) == ("other@1", "roberta")


def test_one_base_under_two_names_is_loaded_once(home: Home) -> None:
    pool = home.pool()
    name(pool, home, "other@1")
    pool.declare(f"{home.path}/./roberta")
    until(lambda: pool.status()[-1].phase == "ready")
    assert len({id(loaded) for loaded in pool._entries.loaded()}) == 2 and len(pool.status()) == 3


def told(home: Home, name: str, base: dict[str, str]) -> Version:
    """`other@1` as somebody else's manifest might tell of it."""
    source = home.store.get("other@1")
    return copy_of(replace(source, manifest={**source.manifest, "base": base}), home.path, name)


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ({"id": "../roberta", "source": "hub"}, "no Hub id"),
        ({"id": "{home}/roberta", "source": "folder"}, "nobody has said where it lies"),
        ({"id": "{home}/roberta", "source": "hub"}, "no Hub id"),
        ({"id": "./roberta", "source": "hub", "revision": "a" * 40}, "no Hub id"),
        ({"id": "elsewhere", "source": "folder"}, "nobody has said where it lies"),
    ],
)
def test_a_foreign_manifest_names_no_path(home: Home, base: dict[str, str], why: str) -> None:
    base = {key: value.format(home=home.path) for key, value in base.items()}

    version = told(home, "foreign", {**base, "identity": "0" * 16, "shape_id": ""})
    with pytest.raises(AdapterError, match=why):
        name(home.pool(), home, version.ref)


def test_a_hub_id_is_no_folder(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that lies here under the id of a foreign manifest is not looked into."""
    (home.path / "org").mkdir(exist_ok=True)
    tiny.make("roberta", home.path / "org" / "model")
    monkeypatch.chdir(home.path)

    version = told(home, "hub", {"id": "org/model", "source": "hub", "revision": "", "identity": "0" * 16})
    with pytest.raises(ModelError, match="org/model is not available"):
        name(home.pool(), home, version.ref)


def test_weights_that_changed_under_a_folder_are_refused(home: Home, tmp_path: Path) -> None:
    base = tiny.make("roberta", tmp_path / "moving", seed=7)
    version = train(replace(home.spec, model=str(base)), home.path, name="moving")
    tiny.make("roberta", base, seed=9)
    with pytest.raises(AdapterError, match="has other weights"):
        name(home.pool(), home, version.ref)


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
