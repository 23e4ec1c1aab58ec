"""store/quota.py: disk that a home may take, and memory within the limits of control groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from errors import GraftError
from settings import Settings
from store import quota


def test_a_full_home_is_refused_and_linked_files_count_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10**6)
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert 10**6 <= quota.used(tmp_path) < 2 * 10**6
    settings = replace(Settings(), home=tmp_path, disk_bytes=10**6)
    with pytest.raises(GraftError, match=r"Not now\. Graft may use 0\.0 GB of disk, and does\."):
        quota.check(settings, "Not now.")
    for disk in (0, 2 * 10**6):
        quota.check(replace(settings, disk_bytes=disk), "Not now.")


def test_free_disk_is_known_for_a_folder_that_does_not_exist_yet(tmp_path: Path) -> None:
    assert 0 < quota.free_disk(tmp_path / "not" / "yet") <= psutil.disk_usage(str(tmp_path)).total


@pytest.mark.parametrize("files", quota.LIMIT_FILES)
def test_memory_below_a_control_groups_limit_includes_its_file_cache(
    files: tuple[str, str, str], tmp_path: Path
) -> None:
    limit, used, cache = files
    for name, text in ((limit, "1000\n"), (used, "700\n"), ("memory.stat", f"anon 1\n{cache} 50\n")):
        (tmp_path / name).write_text(text)
    assert quota._free_in_group(tmp_path) == 350
    for unlimited in ("max\n", f"{1 << 62}\n"):
        (tmp_path / limit).write_text(unlimited)
        assert quota._free_in_group(tmp_path) == quota.UNLIMITED


def test_free_memory_is_at_most_that_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < quota.free_memory() <= psutil.virtual_memory().total
    monkeypatch.setattr(quota, "_control_groups", lambda: [tmp_path])
    (tmp_path / "memory.max").write_text("1000")
    (tmp_path / "memory.current").write_text("900")
    assert quota.free_memory() == 100
