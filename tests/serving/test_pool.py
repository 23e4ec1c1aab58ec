"""serving/pool.py: bases load in the background, requests wait or are told why, and pin their version."""

from __future__ import annotations

import threading
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch

from errors import AdapterError, BusyError, ModelError
from serving import pool as module
from tasks import TabSpec
from tests.conftest import Trained
from tests.helpers.answers import Store, pool_at
from tests.helpers.versions import copy_of, fill, tensors
from tests.helpers.waiting import PATIENCE_S, until


@pytest.fixture
def store(bert: Trained, tmp_path: Path) -> Store:
    return Store(bert, tmp_path)


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


@pytest.mark.parametrize("ref", ["nobody", "one@9", "one@0", "../one", "one@1@2", "One", "one@01"])
def test_an_unknown_version_is_refused_with_those_there_are(store: Store, ref: str) -> None:
    with pytest.raises(AdapterError, match="There is no version") as caught:
        store.name(ref)
    assert "one@1" in caught.value.why


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
    with store.pool.open(store.spec) as lm:
        assert lm.version == "base"
    with pytest.raises(AdapterError, match="not finite"), store.pool.open(store.spec, bad.ref):
        pass


def test_a_base_is_held_in_the_precision_of_the_settings(bert: Trained, tmp_path: Path) -> None:
    """Its versions load, though their proof was told in float32, and answer as they do there."""
    copy_of(bert.first, tmp_path, "mine")
    said = {}
    for precision in ("float32", "bfloat16"):
        pool = pool_at(tmp_path, bert.models, precision=precision)
        pool.declare(bert.spec.model)
        with pool.open(bert.spec, "mine@1") as lm:
            said[precision] = lm.classify("the plot drags")
        assert str(pool.own(bert.spec.model).base.net.dtype) == f"torch.{precision}"
    assert said["bfloat16"] == pytest.approx(said["float32"], abs=0.02) and said["bfloat16"] != said["float32"]


def test_loading_a_version_leaves_the_process_its_default_type(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another base may be loading, under a default type of its own: one of the two would be left behind for good."""
    copy_of(bert.first, tmp_path, "mine")
    pool, changes = pool_at(tmp_path, bert.models, precision="bfloat16"), list[Any]()
    pool.declare(bert.spec.model)
    pool.check(bert.spec, "base")
    real = torch.set_default_dtype
    monkeypatch.setattr(torch, "set_default_dtype", lambda dtype: (changes.append(dtype), real(dtype)))
    with pool.open(bert.spec, "mine@1") as lm:
        assert lm.classify("the plot drags") and changes == []


def test_warm_brings_the_live_version_into_its_slot(store: Store) -> None:
    store.name("base")
    loaded = store.loaded
    assert loaded.base.slots.loaded == []
    store.adapters.promote(store.spec.name, "two@1")
    store.pool.warm(store.spec)
    assert "two@1" in loaded.base.slots.loaded


def test_warm_brings_the_newest_version_into_its_slot_before_anybody_promotes_it(store: Store) -> None:
    store.name("base")
    newest = copy_of(store.trained.first, store.home, "recent", created="9999-01-01T00:00:00Z")
    slots = store.loaded.base.slots
    store.pool.warm(store.spec)
    assert slots.loaded == [newest.ref] and store.name() == "base"
    read = []
    slots._read = lambda version: read.append(version.ref)
    store.adapters.promote(store.spec.name, newest.ref)
    assert store.name() == newest.ref and read == [], "promoting it read nothing"


def test_a_newest_version_that_is_refused_is_tried_once(store: Store) -> None:
    store.name("base")
    bad = tensors(fill("lora_B", 0.0))
    copy_of(store.trained.first, store.home, "bad", bad, created="9999-01-01T00:00:00Z")
    slots = store.loaded.base.slots
    read, real = [], slots._read
    slots._read = lambda version: (read.append(version.ref), real(version))[1]
    for _ in range(3):
        store.pool.warm(store.spec)
    assert read == ["bad@1"] and slots.loaded == [] and store.name() == "base"


def test_warm_does_nothing_for_a_base_that_is_not_there(tmp_path: Path) -> None:
    pool = pool_at(tmp_path)
    pool.warm(TabSpec("tab", "org/none", "causal-lm"))
    pool.declare("org/none")
    until(lambda: pool.status()[0].phase == "failed")
    pool.warm(TabSpec("tab", "org/none", "causal-lm"))


def test_a_base_that_fails_to_load_gives_everybody_the_reason(tmp_path: Path) -> None:
    pool, spec = pool_at(tmp_path), TabSpec("tab", "org/none", "causal-lm")
    pool.declare("org/none")
    depths = []
    for _ in range(5):
        with pytest.raises(ModelError, match="org/none is not available") as caught, pool.open(spec):
            pass
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    [status] = pool.status()
    assert status.phase == "failed" and "org/none is not available" in status.error
    assert len(set(depths)) == 1, "one error for all requests must not grow with each of them"


@pytest.mark.parametrize("error", [ValueError("secret detail"), SystemExit(3), KeyboardInterrupt()])
def test_any_error_that_ends_a_load_is_told_without_its_details(tmp_path: Path, error: BaseException) -> None:
    def load() -> Any:
        raise error

    pool = pool_at(tmp_path)
    pool.declare("own", load)
    with pytest.raises(ModelError) as caught:
        pool.own("own")
    assert type(error).__name__ in str(caught.value) and "secret" not in str(caught.value)
    assert pool.status()[0].phase == "failed"


def test_declaring_again_does_nothing_unless_it_failed(tmp_path: Path) -> None:
    pool, calls, fails = pool_at(tmp_path), list[int](), [True]

    def load() -> str:
        calls.append(1)
        if fails[0]:
            raise ModelError("not now")
        return "module"

    pool.declare("own", load)
    with pytest.raises(ModelError, match="not now"):
        pool.own("own")
    fails[0] = False
    for _ in range(3):
        pool.declare("own", load)
        assert pool.own("own") == "module"
    assert len(calls) == 2
    assert [(s.id, s.phase, s.fraction, s.error) for s in pool.status()] == [("own", "ready", 1.0, "")]


def test_a_request_waits_for_a_base_that_is_still_loading(tmp_path: Path) -> None:
    pool, go, found = pool_at(tmp_path), threading.Event(), list[str]()

    def load() -> str:
        assert go.wait(PATIENCE_S)
        return "module"

    pool.declare("own", load)
    threads = [threading.Thread(target=lambda: found.append(pool.own("own"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    pool.declare("own", load)
    assert found == [] and pool.status()[0].phase == "queued"
    go.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == ["module"] * 3


def test_a_request_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool, go = pool_at(tmp_path), threading.Event()
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    pool.declare("own", lambda: go.wait(PATIENCE_S))
    with pytest.raises(BusyError, match="still loading"):
        pool.own("own")
    go.set()


def test_a_base_that_no_tab_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="No tab names it"):
        pool_at(tmp_path).own("org/none")


def test_status_tells_the_phases_in_order_of_declaration(bert: Trained, tmp_path: Path) -> None:
    pool = pool_at(tmp_path, bert.models)
    pool.declare("own", lambda: "module")
    pool.declare(bert.spec.model)
    until(lambda: all(status.phase == "ready" for status in pool.status()))
    assert [status.id for status in pool.status()] == ["own", bert.spec.model]


def test_one_base_is_loaded_once_for_all_its_tabs(store: Store) -> None:
    other = TabSpec("other", store.spec.model, store.spec.task, store.spec.columns)
    store.pool.declare(other.model)
    store.adapters.promote(store.spec.name, "one@1")
    with store.pool.open(store.spec) as lm, store.pool.open(other) as same:
        assert lm.version == "one@1" and same.version == "base"
        assert lm._loaded is same._loaded
    assert len(store.pool.status()) == 1
