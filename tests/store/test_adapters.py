"""store/adapters.py: versions are whole or absent and never change; each tab has a history of live versions."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import AdapterError
from store import files
from store.adapters import WEIGHTS, AdapterStore, _parse, check_name, live_stack
from store.staging import MANIFEST
from tests.helpers.run_helpers import blocked
from tests.helpers.waiting import until

TAB = "classification"


def publish(store: AdapterStore, name: str = "tickets", plugin: str = TAB) -> str:
    with store.staging() as staging:
        (staging / WEIGHTS).write_text("weights")
        return store.publish(staging, name, {"plugin": plugin, "created": "2026-01-01"}).ref


@pytest.fixture
def empty(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "home", tmp_path / "shipped")


@pytest.fixture
def store(empty: AdapterStore) -> AdapterStore:
    """tickets@1 to tickets@3, none of them live."""
    for _ in range(3):
        publish(empty)
    return empty


@pytest.fixture
def shipped(tmp_path: Path) -> AdapterStore:
    """An empty home beside the shipped version sentiment@1, which is live."""
    publish(AdapterStore(tmp_path / "made"), "sentiment")
    (tmp_path / "made" / "adapters").rename(tmp_path / "shipped")
    (tmp_path / "shipped" / "live").mkdir()
    files.write_json(tmp_path / "shipped" / "live" / f"{TAB}.json", [{"version": "sentiment@1", "at": 0}])
    return AdapterStore(tmp_path / "home", tmp_path / "shipped")


def promote(store: AdapterStore, *numbers: int) -> None:
    for number in numbers:
        store.promote(TAB, f"tickets@{number}")


def live(store: AdapterStore) -> str:
    version = store.live(TAB)
    return version.ref if version else "base"


def test_published_versions_are_numbered_and_read_back(empty: AdapterStore) -> None:
    assert [publish(empty), publish(empty), publish(empty, "other")] == ["tickets@1", "tickets@2", "other@1"]
    assert {v.ref for v in empty.versions()} == {"tickets@1", "tickets@2", "other@1"}
    assert empty.get("tickets").ref == "tickets@2"
    version = empty.get("tickets@1")
    version.check_files()
    facts = {"size": 7, "sha256": files.sha256(version.path / WEIGHTS)}
    assert json.loads((version.path / MANIFEST).read_text())["files"] == {WEIGHTS: facts}
    (version.path / WEIGHTS).write_text("WEIGHTS")
    with pytest.raises(AdapterError, match="changed since it was published"):
        version.check_files()


def test_shipped_versions_are_read_numbered_on_and_never_written(shipped: AdapterStore, tmp_path: Path) -> None:
    assert live(shipped) == "sentiment@1"
    assert publish(shipped, "sentiment") == "sentiment@2"
    shipped.promote(TAB, "sentiment@2")
    assert shipped.roll_back(TAB) == "sentiment@1"
    assert not (tmp_path / "shipped" / "sentiment" / "2").exists()
    with pytest.raises(AdapterError, match="It came with Graft"):
        shipped.delete("sentiment@1")
    assert shipped.get("sentiment@1").path.exists()


@pytest.mark.parametrize(("file", "size"), [(MANIFEST, None), (MANIFEST, 40), (WEIGHTS, None), (WEIGHTS, 1)])
def test_r11_a_folder_that_is_not_whole_does_not_exist(empty: AdapterStore, file: str, size: int | None) -> None:
    publish(empty)
    path = empty.get("tickets@1").path / file
    if size is None:
        path.unlink()
    else:
        os.truncate(path, size)
    assert empty.versions() == []
    with pytest.raises(AdapterError, match="There is no version 'tickets@1'"):
        empty.get("tickets@1")


def test_a_version_that_could_not_be_read_for_a_moment_is_back_after_it(store: AdapterStore) -> None:
    """A failure is not kept, though names, sizes and times are as before."""
    manifest = store.get("tickets@2").path / MANIFEST
    content, stat = manifest.read_bytes(), manifest.stat()
    _parse.cache_clear()
    for written in (b"x" * len(content), content):
        manifest.write_bytes(written)
        os.utime(manifest, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        assert ("tickets@2" in {version.ref for version in store.versions()}) == (written == content)


def test_a_link_to_nowhere_in_the_folder_of_a_version_hides_nothing(store: AdapterStore) -> None:
    (store.get("tickets@3").path / ".#README.md").symlink_to("nowhere")
    assert store.get("tickets@3").ref == "tickets@3"


def test_staging_is_never_listed_and_is_removed_on_failure(empty: AdapterStore) -> None:
    with pytest.raises(RuntimeError), empty.staging() as staging:
        (staging / WEIGHTS).write_text("half")
        assert empty.versions() == []
        raise RuntimeError
    assert list(empty.root.iterdir()) == []


def test_the_history_keeps_every_change_with_who_and_why(store: AdapterStore) -> None:
    store.promote(TAB, "tickets@1", "not worse", "gate of run 7")
    store.promote(TAB, "tickets@2", "customers asked", "ada")
    store.roll_back(TAB, "it was rude", "page")
    store.delete("tickets@3", "no use", "bob")
    history = store.history(TAB)
    assert [(e["version"], e["why"], e["who"]) for e in history] == [
        ("tickets@1", "not worse", "gate of run 7"),
        ("tickets@2", "customers asked", "ada"),
        ("tickets@1", "it was rude", "page"),
        ("tickets@3", "no use", "bob"),
    ]
    assert [e.get("back", False) for e in history] == [False, False, True, False]
    assert history[-1]["deleted"] and history[-1]["at"] > 0
    assert live(store) == "tickets@1" and store.rollback_target(TAB) == "base"
    promote(store, 1)  # which is live, so nothing changes
    assert store.history(TAB) == history
    promote(store, 2)
    store.promote(TAB, "base")
    assert live(store) == "base" and store.rollback_target(TAB) == "tickets@2"
    assert [store.roll_back(TAB) for _ in range(3)] == ["tickets@2", "tickets@1", "base"]
    assert store.rollback_target(TAB) is None and len(store.history(TAB)) == 9
    with pytest.raises(AdapterError, match="nothing to roll back"):
        store.roll_back(TAB)


def test_a_history_of_earlier_releases_is_read(store: AdapterStore) -> None:
    store.watched[1].mkdir()
    files.write_json(store.watched[1] / f"{TAB}.json", [{"version": "tickets@1"}])
    assert live(store) == "tickets@1" and store.rollback_target(TAB) == store.roll_back(TAB) == "base"


MOVES = st.lists(st.sampled_from(["tickets@1", "tickets@2", "tickets@3", "base", "back"]), max_size=30)


@given(moves=MOVES, kept=st.integers(1, 30))
def test_live_versions_are_a_stack_even_where_the_history_was_cut(moves: list[str], kept: int) -> None:
    stack, entries = list[str](), list[dict[str, object]]()
    for move in moves:
        if move != "back":
            if not entries or entries[-1]["version"] != move:
                stack.append(move)
                entries.append({"version": move})
        elif stack:
            stack.pop()
            entries.append({"version": stack[-1] if stack else "base", "back": True})
    assert live_stack(entries) == stack
    last, cut = stack[-1] if stack else "base", live_stack(entries[-kept:])
    assert (cut[-1] if cut else "base") == last


def test_a_long_history_is_cut_at_its_beginning_and_deletions_push_out_nothing_else(
    store: AdapterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.adapters.HISTORY_LENGTH", 4)
    promote(store, 1)
    for _ in range(3):
        promote(store, 2)
        store.roll_back(TAB)
    assert live(store) == "tickets@1" and len(store.history(TAB)) == 4
    for _ in range(5):
        store.delete(publish(store))
    assert live(store) == "tickets@1"
    assert [e["version"] for e in store.history(TAB)[4:]] == [f"tickets@{n}" for n in (5, 6, 7, 8)]


def test_missing_versions_are_skipped(store: AdapterStore) -> None:
    promote(store, 1, 2, 3)
    shutil.rmtree(store.get("tickets@2").path)
    assert store.rollback_target(TAB) == "tickets@1"
    (store.get("tickets@3").path / MANIFEST).unlink()
    assert live(store) == "tickets@1", "a damaged folder leaves no tab without an answer"
    assert [store.roll_back(TAB), store.roll_back(TAB)] == ["tickets@1", "base"]


def test_a_version_that_is_live_or_the_target_of_a_roll_back_is_not_deleted(store: AdapterStore) -> None:
    promote(store, 1, 2, 3)
    with pytest.raises(AdapterError, match="classification answers with it"):
        store.delete("tickets@3")
    with pytest.raises(AdapterError, match="roll back of classification would return to it"):
        store.delete("tickets@2")
    store.delete("tickets@1")
    assert [v.ref for v in store.versions()] == ["tickets@3", "tickets@2"]
    assert not list(store.root.glob(f"{files.STAGING_PREFIX}*"))
    with pytest.raises(AdapterError, match="There is no version 'tickets@1'"):
        store.delete("tickets@1")


def test_a_number_is_never_given_twice(store: AdapterStore) -> None:
    store.delete("tickets@3")
    assert publish(store) == "tickets@4"
    shutil.rmtree(store.get("tickets@4").path)
    assert publish(store) == "tickets@5"


def _change(home: str, how: str) -> None:
    store = AdapterStore(Path(home))
    {"promote": lambda: promote(store, 2), "delete": lambda: store.delete("tickets@2"),
     "roll back": lambda: store.roll_back(TAB)}[how]()  # fmt: skip


@pytest.mark.parametrize("how", ["promote", "delete", "roll back"])
def test_r31_a_change_of_the_live_version_waits_for_the_one_before(tmp_path: Path, how: str) -> None:
    store = AdapterStore(tmp_path)
    publish(store), publish(store)
    promote(store, 1)
    before, lock = store.history(TAB), tmp_path / "live" / ".lock"
    with files.lock(lock):
        other = multiprocessing.get_context("spawn").Process(target=_change, args=(str(tmp_path), how))
        other.start()
        until(lambda: f" {other.pid} " in blocked(lock.stat().st_ino), 60)
        assert store.history(TAB) == before and len(store.versions()) == 2
    other.join()
    assert len(store.history(TAB)) == len(before) + 1


def test_a_version_of_another_tab_cannot_be_promoted(store: AdapterStore) -> None:
    publish(store, "notes", plugin="summarization")
    with pytest.raises(AdapterError, match="not a version of classification"):
        store.promote(TAB, "notes@1")


@pytest.mark.parametrize("name", ["", "base", "live", "Tickets", "../up", "a/b", "a" * 41, "ünï", ".hidden", "a\0b"])
def test_r16_names_that_could_be_paths_or_words_are_refused(name: str) -> None:
    with pytest.raises(AdapterError):
        check_name(name)


OUTSIDE = ["../other/adapters/tickets@1", "../other/adapters/tickets", "../tickets@1", "tickets@1/.."]


@pytest.mark.parametrize("ref", [*OUTSIDE, "tickets@99", "tickets@-1", "@1", "", "tickets@١"])
def test_r16_a_reference_leads_nowhere_else_and_names_what_there_is(empty: AdapterStore, ref: str) -> None:
    publish(empty)
    publish(AdapterStore(empty.root.parent / "other"))
    assert (empty.root / "../other/adapters/tickets/1" / MANIFEST).is_file()
    with pytest.raises(AdapterError, match="There are: tickets@1"):
        empty.get(ref)


def _publish_many(home: str) -> list[str]:
    store = AdapterStore(Path(home))
    return [publish(store) for _ in range(5)]


def test_publishers_in_several_processes_never_share_a_number(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        refs = [ref for some in pool.map(_publish_many, [str(tmp_path)] * 3) for ref in some]
    assert sorted(refs) == sorted(f"tickets@{n}" for n in range(1, 16))
    assert len(AdapterStore(tmp_path).versions()) == 15
