"""slots.py: versions in use are never evicted, and more than fit wait instead of failing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
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
    slots = bert.load().base.slots
    one, two, three, four = [replace(bert.first, number=number) for number in (11, 12, 13, 14)]
    got, done = threading.Event(), threading.Event()

    def ask() -> None:
        with slots.pin(three):
            got.set()
            assert done.wait(PATIENCE_S)

    with ThreadPoolExecutor(1) as thread, slots.pin(one):
        with slots.pin(two):
            asked = thread.submit(ask)
            assert not got.wait(0.2) and len(slots.loaded) == 2
            with slots.pin(one):  # one that is in memory needs no room
                pass
        assert got.wait(PATIENCE_S)
        monkeypatch.setattr(module, "WAIT_S", 0.05)
        with pytest.raises(BusyError, match="2 other versions"), slots.pin(four):
            pass
        done.set()
        asked.result(PATIENCE_S)
