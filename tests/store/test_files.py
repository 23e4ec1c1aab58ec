"""store/files.py: a reader sees the old file or the new one, whatever happens to the writer; leftovers are swept."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from store import files


def test_text_and_json_are_read_back_and_a_value_that_json_lacks_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"ü": [1, None]})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, float("nan"))
    assert files.read_json(path) == {"ü": [1, None]}
    files.write_text(path, "2")
    assert files.read_json(path) == 2 and list(tmp_path.iterdir()) == [path]
    path.write_bytes(b"\xff2")
    assert (files.read_if_there(path), files.read_if_there(tmp_path / "b")) == ("\ufffd2", "")


@pytest.mark.parametrize("at", ["fsync", "rename"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    files.write_text(tmp_path / "a", "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if at == "fsync" else (Path, "rename")), fail)
    with pytest.raises(OSError, match="No space"):
        files.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"


def test_sealing_never_replaces_a_folder_and_staging_is_removed(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "kept").write_text("kept")
    with pytest.raises(OSError, match="not empty"), files.staging(tmp_path) as staging:
        (staging / "new").write_text("new")
        files.seal(staging, tmp_path / "1")
    assert [path.name for path in tmp_path.rglob("*")] == ["1", "kept"]


def test_only_leftovers_of_an_earlier_day_are_swept(tmp_path: Path) -> None:
    with files.staging(tmp_path) as old, files.staging(tmp_path) as fresh:
        (old / "half").write_text("half")
        os.utime(old, (time.time() - files.STALE_AFTER_S - 60,) * 2)
        files.sweep(tmp_path)
        assert not old.exists() and fresh.exists()


def test_a_digest_is_that_of_the_bytes_and_reports_its_progress(tmp_path: Path) -> None:
    data, seen = os.urandom(2_500_000), list[int]()
    (tmp_path / "a").write_bytes(data)
    assert files.sha256(tmp_path / "a", seen.append) == hashlib.sha256(data).hexdigest()
    assert seen == [1 << 20, 2 << 20, 2_500_000]


def _count(folder: str, rounds: int) -> None:
    counter = Path(folder) / "counter"
    for _ in range(rounds):
        with files.lock(Path(folder) / ".lock"):
            counter.write_text(str(int(counter.read_text()) + 1))


def test_a_lock_holds_between_processes(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.starmap(_count, [(str(tmp_path), 50)] * 3, chunksize=1)
    assert (tmp_path / "counter").read_text() == "150"


def test_a_lock_that_stays_held_is_given_up_after_its_seconds(tmp_path: Path) -> None:
    path = tmp_path / "runs.lock"
    with files.lock(path), pytest.raises(TimeoutError, match=r"runs\.lock has been held for 0\.05 s"):
        files.lock(path, 0.05).__enter__()
    with files.lock(path, 0.05), files.try_lock(path) as free:
        assert not free


def test_a_shared_lock_keeps_the_exclusive_one_away_until_all_are_released(tmp_path: Path) -> None:
    path = tmp_path / "new" / "use"
    first, second, third = (files.SharedLock(path) for _ in range(3))
    for release in (first.release, second.release, lambda: None):
        with files.try_lock(path) as free:
            assert not free
        release()
    del third
    with files.try_lock(path) as free:
        assert free, "it ends with its holder"
