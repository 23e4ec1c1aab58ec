"""store/watch.py: changes of watched folders are noticed, whether or not the folders are there yet."""

import threading
from pathlib import Path

import pytest

from store.watch import EVERY_S, Watch, snapshot
from tests.helpers.waiting import until


@pytest.mark.parametrize("exists", [True, False], ids=["there", "not there yet"])
def test_a_watch_notices_additions_replacements_and_removals(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "watched"
    if exists:
        folder.mkdir()
    noticed = threading.Event()
    watch = Watch([folder], noticed.set, every_s=0.1)
    watch.start()
    try:
        for act in (
            lambda: (folder / "name" / "1").mkdir(parents=True),
            lambda: (folder / "live.json").write_text("1"),
            lambda: (folder / "live.json").write_text("22"),
            lambda: (folder / "live.json").unlink(),
        ):
            noticed.clear()
            act()
            assert noticed.wait(30)
    finally:
        watch.stop()
    assert EVERY_S <= 0.5, "a change is noticed within a second"


def test_a_snapshot_has_files_of_a_version_and_neither_staging_nor_bytecode(tmp_path: Path) -> None:
    version = tmp_path / "name" / "1"
    version.mkdir(parents=True)
    before = snapshot([tmp_path])
    (tmp_path / ".staging-x").mkdir()
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "echo.cpython-311.pyc").write_bytes(b"x")
    assert snapshot([tmp_path]) == before
    (version / "manifest.json").write_text("{}")
    assert snapshot([tmp_path]) != before


def test_a_callback_that_fails_does_not_end_the_watch(tmp_path: Path) -> None:
    calls: list[int] = []

    def changed() -> None:
        calls.append(1)
        raise ValueError

    watch = Watch([tmp_path], changed, every_s=0.1)
    watch.start()
    try:
        for number in (1, 2):
            (tmp_path / f"{number}.json").write_text("x")
            until(lambda number=number: len(calls) >= number)
    finally:
        watch.stop()
