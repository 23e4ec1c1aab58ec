"""serving/pool.py: bases load in the background, requests wait for them or get the reason, and pin their version."""

from __future__ import annotations

import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import AdapterError, BusyError, ModelError
from serving import pool as module
from serving.pool import Pool
from tasks import TabSpec
from tests.conftest import Trained
from tests.helpers import child
from tests.helpers.answers import Store, pool_at
from tests.helpers.versions import copy_of, fill, tensors
from tests.helpers.waiting import PATIENCE_S, until

NEWEST = "9999-01-01T00:00:00Z"


@pytest.fixture
def store(bert: Trained, tmp_path: Path) -> Store:
    return Store(bert, tmp_path)


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """A pool without models."""
    return pool_at(tmp_path)


def reads(store: Store) -> list[str]:
    """Collect the versions that are read from the disk from now on."""
    store.name("base")
    slots, found = store.loaded.base.slots, list[str]()
    real = slots._read
    slots._read = lambda version: (found.append(version.ref), real(version))[1]
    return found


def test_a_version_is_released_unless_a_request_is_answered_with_it(store: Store) -> None:
    store.pool.release("one@1")  # nothing is loaded yet
    with store.pool.open(store.spec, "one@1") as lm:
        assert lm.version == "one@1"
        with pytest.raises(AdapterError, match="one@1 is in use"):
            store.pool.release("one@1")
    slots = store.loaded.base.slots
    assert slots.loaded == ["one@1"]
    store.pool.release("one@1")
    assert slots.loaded == []
    store.pool.declare("own", lambda: object())  # a module without versions
    store.pool.own("own")
    store.pool.release("one@1")
    assert store.name("one@1") == "one@1"


def test_adapters_are_resolved_for_each_request(store: Store) -> None:
    asked, answered = ("live", "", "base", "one", "one@", "one@1", "two@1"), "base base base one@2 one@2 one@1 two@1"
    assert [store.name(adapter) for adapter in asked] == answered.split()
    store.adapters.promote(store.spec.name, "one@1")
    assert [store.name(a) for a in ("live", "", "base", "one")] == ["one@1", "one@1", "base", "one@2"]
    copy_of(store.trained.first, store.home, "one")
    assert store.name("one") == "one@3"
    store.adapters.roll_back(store.spec.name)
    assert store.name() == "base"
    for ref in ("nobody", "one@9", "one@0", "../one", "one@1@2", "One", "one@01"):
        with pytest.raises(AdapterError, match="There is no version") as caught:
            store.name(ref)
        assert "one@1" in caught.value.why, "those that there are"


def test_a_live_version_that_is_refused_gives_way_to_the_one_before(store: Store) -> None:
    """The tab goes on answering, and the answer says by what and why; asked for by name, it is an error."""
    store.adapters.promote(store.spec.name, "two@1")
    bad = copy_of(store.trained.first, store.home, "bad", tensors(fill("lora_A", float("nan"))))
    with pytest.raises(AdapterError, match="not finite"):
        store.pool.check(store.spec, bad.ref)
    store.adapters.promote(store.spec.name, bad.ref)
    with store.pool.open(store.spec) as lm:
        assert lm.version == "two@1"
        assert len(lm.notes) == 1 and "bad@1 was refused." in lm.notes[0] and "not finite" in lm.notes[0]
    store.adapters.promote(store.spec.name, "base")
    store.adapters.promote(store.spec.name, bad.ref)
    assert store.name() == "base"


def test_a_base_is_held_in_the_precision_of_the_settings(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Versions trained in float32 load, and answer nearly as there.

    Loading one leaves the process its default type: another base may be loading under one of its own, and one of the
    two would be left behind for good.
    """
    copy_of(bert.first, tmp_path, "mine")
    answers, changes, real = {}, list[Any](), torch.set_default_dtype
    for precision in ("float32", "bfloat16"):
        pool = pool_at(tmp_path, bert.models, bert.spec.model, precision=precision)
        pool.check(bert.spec, "base")
        monkeypatch.setattr(torch, "set_default_dtype", lambda dtype: (changes.append(dtype), real(dtype)))
        with pool.open(bert.spec, "mine@1") as lm:
            answers[precision] = lm.classify("the plot drags")
        monkeypatch.undo()
        assert str(pool.own(bert.spec.model).base.net.dtype) == f"torch.{precision}" and changes == []
    assert answers["bfloat16"] == pytest.approx(answers["float32"], abs=0.02)
    assert answers["bfloat16"] != answers["float32"]


def test_warm_brings_the_live_and_the_newest_version_into_their_slots(store: Store) -> None:
    read, slots = reads(store), store.loaded.base.slots
    assert slots.loaded == []
    store.adapters.promote(store.spec.name, "two@1")
    newest = copy_of(store.trained.first, store.home, "recent", created=NEWEST)
    store.pool.warm(store.spec)
    assert set(slots.loaded) == {newest.ref, "two@1"} and store.name() == "two@1"
    store.adapters.promote(store.spec.name, newest.ref)
    assert store.name() == newest.ref and len(read) == 2, "promoting it read nothing"


def test_a_newest_version_that_is_refused_is_tried_once(store: Store) -> None:
    read = reads(store)
    copy_of(store.trained.first, store.home, "bad", tensors(fill("lora_B", 0.0)), created=NEWEST)
    for _ in range(3):
        store.pool.warm(store.spec)
    assert read == ["bad@1"] and store.loaded.base.slots.loaded == [] and store.name() == "base"


def test_a_base_that_fails_to_load_gives_everybody_the_reason(pool: Pool) -> None:
    spec, depths = TabSpec("tab", "org/none", "causal-lm"), []
    pool.warm(spec)  # does nothing for a base that is not there
    pool.declare("org/none")
    for _ in range(5):
        with pytest.raises(ModelError, match="org/none is not available") as caught:
            pool.check(spec, "base")
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    pool.warm(spec)
    [status] = pool.status()
    assert status.phase == "failed" and "org/none is not available" in status.error
    assert len(set(depths)) == 1, "one error for all requests must not grow with each of them"
    with pytest.raises(ModelError, match="No tab names it"):
        pool.own("org/other")


@pytest.mark.parametrize("error", [ValueError("secret detail"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_that_ends_a_load_is_shown_without_its_details(pool: Pool, error: BaseException) -> None:
    def load() -> Any:
        raise error

    pool.declare("own", load)
    with pytest.raises(ModelError) as caught:
        pool.own("own")
    assert type(error).__name__ in str(caught.value) and "secret" not in str(caught.value)
    assert pool.status()[0].phase == "failed"


def test_a_module_of_a_plugin_is_built_where_loads_take_turns(tmp_path: Path) -> None:
    """Otherwise the first load of a plugin could run beside that of a base."""
    code = (
        "import sys; from pathlib import Path; from models.resolve import ModelStore; from serving.pool import Pool;"
        "from settings import Settings; from store.adapters import AdapterStore; home = Path(sys.argv[1]);"
        "pool = Pool(Settings(home=home), ModelStore(home), AdapterStore(home));"
        "pool.declare('own', lambda: 'models.transformers_private' in sys.modules); print(pool.own('own'))"
    )
    assert child.run("-c", code, str(tmp_path)).stdout.split() == ["True"]


def test_declaring_again_does_nothing_unless_it_failed(pool: Pool) -> None:
    results = iter([ModelError("not now"), "module"])

    def load() -> Any:
        result = next(results)
        if isinstance(result, ModelError):
            raise result
        return result

    pool.declare("own", load)
    with pytest.raises(ModelError, match="not now"):
        pool.own("own")
    for _ in range(3):
        pool.declare("own", load)
        assert pool.own("own") == "module"
    assert [(s.id, s.phase, s.fraction, s.error) for s in pool.status()] == [("own", "ready", 1.0, "")]


def test_a_request_waits_for_a_base_that_is_still_loading_but_not_for_ever(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    pool.declare("own", lambda: (go.wait(PATIENCE_S), "module")[1])
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(pool.own, "own") for _ in range(3)]
        until(lambda: pool._entries.find("own").users == 3)  # type: ignore[union-attr]
        monkeypatch.setattr(module, "WAIT_S", 0.05)
        with pytest.raises(BusyError, match="still loading"):
            pool.own("own")
        assert not any(one.done() for one in asked) and pool.status()[0].phase == "queued"
        go.set()
        assert [one.result(PATIENCE_S) for one in asked] == ["module"] * 3


def test_one_base_is_loaded_once_for_all_its_tabs(store: Store) -> None:
    other = TabSpec("other", store.spec.model, store.spec.task, store.spec.columns)
    store.pool.declare(other.model)
    store.pool.declare("own", lambda: "module")
    store.adapters.promote(store.spec.name, "one@1")
    with store.pool.open(store.spec) as lm, store.pool.open(other) as same:
        assert lm.version == "one@1" and same.version == "base"
        assert lm._loaded is same._loaded
    until(lambda: all(status.phase == "ready" for status in store.pool.status()))
    assert [status.id for status in store.pool.status()] == [store.spec.model, "own"], "in the order of declaration"
