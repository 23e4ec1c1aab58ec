"""A change of a watched folder is noticed within a second, with file events and without."""

import threading
import time
from pathlib import Path

import pytest

from store.watch import Watch, look


@pytest.mark.parametrize("exists", [True, False], ids=["events", "looking"])
def test_it_notices_what_is_added_replaced_and_removed(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "watched"
    if exists:
        folder.mkdir()
    noticed = threading.Event()
    watch = Watch([folder], noticed.set, every_s=0.1)
    watch.start()
    version = folder / "name" / "1"
    try:
        for act in (
            lambda: version.mkdir(parents=True),
            lambda: (folder / "live.json").write_text("1"),
            lambda: (folder / "live.json").write_text("22"),
            lambda: (folder / "live.json").unlink(),
        ):
            noticed.clear()
            act()
            assert noticed.wait(1.0)
        time.sleep(0.3)
        noticed.clear()
        (folder / ".staging-x").mkdir()
        assert not noticed.wait(0.4)
    finally:
        watch.stop()


def test_it_notices_the_files_of_a_version_that_is_copied_in_slowly(tmp_path: Path) -> None:
    version = tmp_path / "name" / "1"
    version.mkdir(parents=True)
    before = look([tmp_path])
    (version / "manifest.json").write_text("{}")
    assert look([tmp_path]) != before


def test_bytecode_beside_plugins_is_no_change(tmp_path: Path) -> None:
    before = look([tmp_path])
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "echo.cpython-311.pyc").write_bytes(b"x")
    assert look([tmp_path]) == before


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
            deadline = time.monotonic() + 2
            while len(calls) < number and time.monotonic() < deadline:
                time.sleep(0.02)
        assert len(calls) >= 2
    finally:
        watch.stop()
