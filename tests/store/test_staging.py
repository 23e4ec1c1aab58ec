"""store/staging.py: a placed folder is whole or absent, built once, and built again where it was damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from settings import REPOSITORY
from store.files import STAGING_PREFIX
from store.staging import discard, place, read_manifest, sweep

CHILD = """
import os, sys, time
from pathlib import Path
from store import files
from store.staging import place
root, mode = Path(sys.argv[1]), sys.argv[2]
syncs = 0
sync = files.sync
def count(path):
    global syncs
    syncs += 1
    if mode == f"die{syncs}":
        os._exit(9)
    sync(path)
files.sync = count
def build(work, out):
    with (root / "builds").open("a") as log:
        log.write("x")
    (out / "a").write_text("first")
    if mode == "hang":
        print("half", flush=True)
        time.sleep(60)
    time.sleep(0.2 if mode == "slow" else 0)
    (out / "b").write_text("second")
place(root, "m", {"revision": "1"}, build)
print("syncs", syncs)
"""


def child(root: Path, mode: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", CHILD, str(root), mode]
    return subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, text=True)


FACTS = {"revision": "1"}


def build(work: Path, out: Path) -> None:
    (out / "a").write_text("first")
    (out / "b").write_text("second")


def check_whole(root: Path) -> None:
    manifest = read_manifest(root / "m")
    assert manifest is not None and sorted(manifest["files"]) == ["a", "b"]
    assert (root / "m" / "b").read_text() == "second"


def test_a_killed_builder_leaves_no_folder_and_its_leftovers_are_swept(tmp_path: Path) -> None:
    with child(tmp_path, "hang") as process:
        assert process.stdout is not None and process.stdout.readline() == "half\n"
        [staging] = tmp_path.glob(f"{STAGING_PREFIX}*")
        sweep(tmp_path)
        assert staging.exists(), "its builder lives"
        process.kill()
    assert not (tmp_path / "m").exists()
    sweep(tmp_path)
    assert not staging.exists()
    place(tmp_path, "m", FACTS, build)  # the dead process holds no lock
    check_whole(tmp_path)


def test_r11_death_at_every_sync_leaves_all_or_nothing(tmp_path: Path) -> None:
    with child(tmp_path / "count", "whole") as process:
        (tmp_path / "count").mkdir()
        output, _ = process.communicate()
    total = int(output.split()[1])
    assert total >= 6
    for k in range(1, total + 1):
        root = tmp_path / str(k)
        root.mkdir()
        with child(root, f"die{k}") as process:
            assert process.wait() == 9
        assert (read_manifest(root / "m") is not None) == (root / "m").exists() == (k == total)
        place(root, "m", FACTS, build)
        check_whole(root)


def test_several_processes_build_a_folder_once(tmp_path: Path) -> None:
    with child(tmp_path, "slow") as one, child(tmp_path, "slow") as two:
        assert (one.wait(), two.wait()) == (0, 0)
    assert (tmp_path / "builds").read_text() == "x"
    check_whole(tmp_path)


def test_a_failed_build_leaves_nothing(tmp_path: Path) -> None:
    def fail(work: Path, out: Path) -> None:
        (out / "a").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        place(tmp_path, "m", FACTS, fail)
    assert [path.name for path in tmp_path.iterdir()] == [".m.lock"]


def test_a_damaged_folder_is_set_aside_and_built_again(tmp_path: Path) -> None:
    place(tmp_path, "m", FACTS, build)
    (tmp_path / "m" / "b").write_text("secon")
    os.utime(tmp_path / "m", (time.time() - 90_000,) * 2)
    assert read_manifest(tmp_path / "m") is None
    place(tmp_path, "m", FACTS, build)
    check_whole(tmp_path)
    place(tmp_path, "n", FACTS, build)  # sweeps, but what was set aside stays for a day
    aside = list(tmp_path.glob(f"{STAGING_PREFIX}*"))
    assert [(path / "b").read_text() for path in aside] == ["secon"]


def test_a_folder_with_other_facts_is_replaced_and_a_discarded_one_is_gone(tmp_path: Path) -> None:
    place(tmp_path, "m", FACTS, build)
    place(tmp_path, "m", {"revision": "2"}, lambda work, out: (out / "c").touch())
    assert (read_manifest(tmp_path / "m") or {}).keys() == {"files", "revision"}
    assert [path.name for path in (tmp_path / "m").glob("[!m]*")] == ["c"]
    discard(tmp_path, "m")
    discard(tmp_path, "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"files": {"a": 1}}'])
def test_a_manifest_of_another_shape_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert read_manifest(tmp_path) is None


def test_with_hashes_a_changed_file_of_the_same_size_is_placed_again(tmp_path: Path) -> None:
    folder = place(tmp_path, "m", {}, build, hashes=True)
    (folder / "a").write_text("FIRST")
    assert (place(tmp_path, "m", {}, build) / "a").read_text() == "FIRST", "sizes alone do not show it"
    assert (place(tmp_path, "m", {}, build, hashes=True) / "a").read_text() == "first"
