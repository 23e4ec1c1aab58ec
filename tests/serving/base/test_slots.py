"""serving/base/slots.py: versions in use are never evicted, and more than fit wait instead of failing."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from errors import BusyError
from serving.base import slots as module
from tests.conftest import Trained

PATIENCE_S = 60


def test_whoever_asks_for_one_version_too_many_waits_until_another_is_free(
    bert: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IN_USE", 2)
    resident = bert.load().resident
    versions = [replace(bert.first, number=number) for number in (11, 12, 13)]
    taken, free, got = threading.Semaphore(0), [threading.Event(), threading.Event()], threading.Event()

    def use(number: int) -> None:
        with resident.pin(versions[number]):
            taken.release()
            assert free[number].wait(PATIENCE_S)

    def ask() -> None:
        with resident.pin(versions[2]):
            got.set()

    threads = [threading.Thread(target=use, args=(n,)) for n in (0, 1)]
    for thread in threads:
        thread.start()
        assert taken.acquire(timeout=PATIENCE_S)
    threads.append(threading.Thread(target=ask))
    threads[-1].start()
    assert not got.wait(0.2) and len(resident.slots.loaded) == 2
    with resident.pin(versions[0]):  # one that is in memory needs no room
        pass
    free[0].set()
    assert got.wait(PATIENCE_S)
    free[1].set()
    for thread in threads:
        thread.join(PATIENCE_S)


def test_nobody_waits_for_room_for_ever(bert: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IN_USE", 1)
    monkeypatch.setattr(module, "WAIT_S", 0.05)
    resident = bert.load().resident
    with resident.pin(bert.first), pytest.raises(BusyError, match="1 other versions"), resident.pin(bert.second):
        pass
    with resident.pin(bert.second):
        assert bert.second.ref in resident.slots.loaded
