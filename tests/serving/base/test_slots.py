"""slots.py: versions in use are never evicted, and more than fit wait instead of failing."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from errors import BusyError
from serving.base import slots as module
from tests.conftest import Trained
from tests.helpers.waiting import PATIENCE_S


def test_a_request_for_one_version_too_many_waits_until_another_is_free(
    bert: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_USE", 2)
    resident = bert.load().base
    versions = [replace(bert.first, number=number) for number in (11, 12, 13)]
    taken, free, got = threading.Semaphore(0), [threading.Event(), threading.Event()], threading.Event()

    def use(number: int) -> None:
        with resident.slots.pin(versions[number]):
            taken.release()
            assert free[number].wait(PATIENCE_S)

    def ask() -> None:
        with resident.slots.pin(versions[2]):
            got.set()

    threads = [threading.Thread(target=use, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
        assert taken.acquire(timeout=PATIENCE_S)
    threads.append(threading.Thread(target=ask))
    threads[-1].start()
    assert not got.wait(0.2) and len(resident.slots.loaded) == 2
    with resident.slots.pin(versions[0]):  # one that is in memory needs no room
        pass
    free[0].set()
    assert got.wait(PATIENCE_S)
    free[1].set()
    for thread in threads:
        thread.join(PATIENCE_S)


def test_a_request_does_not_wait_for_a_slot_for_ever(bert: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_USE", 1)
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    resident = bert.load().base
    with (
        resident.slots.pin(bert.first),
        pytest.raises(BusyError, match="1 other versions"),
        resident.slots.pin(bert.second),
    ):
        pass
    with resident.slots.pin(bert.second):
        assert bert.second.ref in resident.slots.loaded
