"""store/adapters.py: versions are whole or absent, immutable, and one pointer a tab says which is live."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import AdapterError
from store import adapters, files
from store.adapters import AdapterStore, check_name, standing
from store.staging import MANIFEST
from tests.helpers.run_helpers import blocked, wait


def publish(
    store: AdapterStore, name: str = "tickets", plugin: str = "classification", content: str = "weights"
) -> str:
    with store.staging() as staging:
        (staging / "adapter_model.safetensors").write_text(content)
        return store.publish(staging, name, {"plugin": plugin, "created": "2026-01-01"}).ref


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "home", tmp_path / "shipped")


def test_publish_numbers_versions_and_reads_them_back(store: AdapterStore) -> None:
    assert [publish(store), publish(store), publish(store, "other")] == ["tickets@1", "tickets@2", "other@1"]
    assert {v.ref for v in store.versions()} == {"tickets@1", "tickets@2", "other@1"}
    assert store.get("tickets").ref == "tickets@2"
    store.get("tickets@1").check_files()


def test_shipped_versions_are_read_and_numbered_on(tmp_path: Path) -> None:
    ship = AdapterStore(tmp_path / "made")
    publish(ship, "sentiment")
    (tmp_path / "made" / "adapters").rename(tmp_path / "shipped")
    files.write_json(
        _mkdir(tmp_path / "shipped" / "live") / "classification.json", [{"version": "sentiment@1", "at": 0}]
    )
    store = AdapterStore(tmp_path / "home", tmp_path / "shipped")
    live = store.live("classification")
    assert live is not None and live.ref == "sentiment@1"
    assert publish(store, "sentiment") == "sentiment@2"
    store.promote("classification", "sentiment@2")
    assert store.roll_back("classification") == "sentiment@1"
    assert not (tmp_path / "shipped" / "sentiment" / "2").exists()


def _mkdir(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("damage", ["no manifest", "half manifest", "short file", "missing file"])
def test_r11_a_folder_that_is_not_whole_does_not_exist(store: AdapterStore, damage: str) -> None:
    publish(store)
    folder = store.get("tickets@1").path
    if damage == "no manifest":
        (folder / MANIFEST).unlink()
    elif damage == "half manifest":
        (folder / MANIFEST).write_text((folder / MANIFEST).read_text()[:40])
    elif damage == "short file":
        (folder / "adapter_model.safetensors").write_text("w")
    else:
        (folder / "adapter_model.safetensors").unlink()
    assert store.versions() == []
    with pytest.raises(AdapterError, match="There is no version 'tickets@1'"):
        store.get("tickets@1")


def test_changed_bytes_of_the_same_size_are_found_before_loading(store: AdapterStore) -> None:
    publish(store, content="weights")
    version = store.get("tickets@1")
    (version.path / "adapter_model.safetensors").write_text("WEIGHTS")
    with pytest.raises(AdapterError, match="changed since it was published"):
        version.check_files()


def test_staging_is_never_listed_and_is_removed_on_failure(store: AdapterStore) -> None:
    with pytest.raises(RuntimeError), store.staging() as staging:
        (staging / "adapter_model.safetensors").write_text("half")
        assert store.versions() == []
        raise RuntimeError
    assert list(store.root.iterdir()) == []


def test_live_follows_promotions_and_rolls_back(store: AdapterStore) -> None:
    publish(store), publish(store)
    assert store.live("classification") is None
    store.promote("classification", "tickets@1", "better")
    store.promote("classification", "tickets@2")
    store.promote("classification", "base")
    assert store.live("classification") is None
    assert store.roll_back("classification") == "tickets@2"
    assert store.roll_back("classification") == "tickets@1"
    assert store.roll_back("classification") == "base"
    with pytest.raises(AdapterError, match="nothing to roll back"):
        store.roll_back("classification")


def test_the_history_keeps_every_change_with_who_and_why(store: AdapterStore) -> None:
    publish(store), publish(store)
    store.promote("classification", "tickets@1", "not worse", "gate of run 7")
    store.promote("classification", "tickets@2", "customers asked", "ada")
    store.roll_back("classification", "it was rude", "page")
    told = [(e["version"], e["why"], e["who"], e.get("back", False)) for e in store.history("classification")]
    assert told == [
        ("tickets@1", "not worse", "gate of run 7", False),
        ("tickets@2", "customers asked", "ada", False),
        ("tickets@1", "it was rude", "page", True),
    ]
    assert store.way_back("classification") == "base"
    store.promote("classification", "tickets@2")
    assert store.way_back("classification") == "tickets@1"
    assert store.roll_back("classification") == "tickets@1"
    assert store.roll_back("classification") == "base"
    assert store.way_back("classification") is None and len(store.history("classification")) == 6


def test_a_history_of_earlier_days_is_read(store: AdapterStore) -> None:
    publish(store)
    files.write_json(_mkdir(store.watched[1]) / "classification.json", [{"version": "tickets@1"}])
    live = store.live("classification")
    assert live is not None and live.ref == "tickets@1" and store.way_back("classification") == "base"
    assert store.roll_back("classification") == "base"


MOVES = st.lists(st.sampled_from(["tickets@1", "tickets@2", "tickets@3", "base", "back"]), max_size=30)


@given(moves=MOVES, kept=st.integers(1, 30))
def test_what_stands_is_a_stack_however_much_of_the_history_is_left(moves: list[str], kept: int) -> None:
    """Against a plain stack, as it was before roll backs were entries; of a cut history, what is live still stands."""
    stack, entries = list[str](), list[dict[str, object]]()
    for move in moves:
        if move != "back":
            if not entries or entries[-1]["version"] != move:
                stack.append(move)
                entries.append({"version": move})
        elif stack:
            stack.pop()
            entries.append({"version": stack[-1] if stack else "base", "back": True})
    assert standing(entries) == stack
    live, cut = stack[-1] if stack else "base", standing(entries[-kept:])
    assert (cut[-1] if cut else "base") == live


def test_a_long_history_is_cut_at_its_beginning(store: AdapterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.adapters.HISTORY_LENGTH", 4)
    publish(store), publish(store), publish(store)
    store.promote("classification", "tickets@1")
    for _ in range(3):
        store.promote("classification", "tickets@2")
        store.roll_back("classification")
    live = store.live("classification")
    assert live is not None and live.ref == "tickets@1" and len(store.history("classification")) == 4


def test_a_roll_back_passes_over_versions_that_are_gone(store: AdapterStore) -> None:
    publish(store), publish(store), publish(store)
    for number in (1, 2, 3):
        store.promote("classification", f"tickets@{number}")
    shutil.rmtree(store.get("tickets@2").path)
    assert store.way_back("classification") == "tickets@1"
    assert store.roll_back("classification") == "tickets@1"
    assert store.roll_back("classification") == "base"


def test_a_version_that_nothing_needs_is_deleted_for_good(store: AdapterStore) -> None:
    publish(store), publish(store), publish(store)
    store.delete("tickets@3")
    assert [v.ref for v in store.versions()] == ["tickets@2", "tickets@1"]
    assert publish(store) == "tickets@4", "its number is not given again"
    assert not list(store.root.glob(f"{files.STAGING_PREFIX}*"))
    with pytest.raises(AdapterError, match="There is no version 'tickets@3'"):
        store.delete("tickets@3")


def test_the_history_keeps_who_deleted_what_and_why(store: AdapterStore) -> None:
    publish(store), publish(store), publish(store)
    store.promote("classification", "tickets@1")
    store.promote("classification", "tickets@2")
    store.delete("tickets@3", "no use", "ada")
    last = store.history("classification")[-1]
    assert (last["version"], last["why"], last["who"], last["deleted"]) == ("tickets@3", "no use", "ada", True)
    assert last["at"] > 0
    live = store.live("classification")
    assert live is not None and live.ref == "tickets@2" and store.way_back("classification") == "tickets@1"
    store.promote("classification", "tickets@2")  # is what answers, so nothing changes
    assert store.history("classification")[-1] == last
    assert store.roll_back("classification") == "tickets@1"


def test_deletions_do_not_push_out_what_answers(store: AdapterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "HISTORY_LENGTH", 3)
    publish(store)
    store.promote("classification", "tickets@1")
    for _ in range(5):
        store.delete(publish(store))
    live = store.live("classification")
    assert live is not None and live.ref == "tickets@1"
    assert [e["version"] for e in store.history("classification")] == [f"tickets@{n}" for n in (1, 4, 5, 6)]


def test_what_is_live_or_the_way_back_is_not_deleted(store: AdapterStore) -> None:
    publish(store), publish(store), publish(store)
    for number in (1, 2, 3):
        store.promote("classification", f"tickets@{number}")
    with pytest.raises(AdapterError, match="classification answers with it"):
        store.delete("tickets@3")
    with pytest.raises(AdapterError, match="roll back of classification would return to it"):
        store.delete("tickets@2")
    store.delete("tickets@1")
    assert {v.ref for v in store.versions()} == {"tickets@2", "tickets@3"}


def test_what_ships_with_graft_is_not_deleted(tmp_path: Path) -> None:
    publish(AdapterStore(tmp_path / "made"), "sentiment")
    (tmp_path / "made" / "adapters").rename(tmp_path / "shipped")
    store = AdapterStore(tmp_path / "home", tmp_path / "shipped")
    with pytest.raises(AdapterError, match="It came with Graft"):
        store.delete("sentiment@1")
    assert store.get("sentiment@1").path.exists()


def test_a_live_version_that_is_gone_gives_way_to_the_one_before(store: AdapterStore) -> None:
    publish(store), publish(store)
    store.promote("classification", "tickets@1")
    store.promote("classification", "tickets@2")
    (store.get("tickets@2").path / MANIFEST).unlink()
    live = store.live("classification")
    assert live is not None and live.ref == "tickets@1"


def test_a_number_is_never_given_twice(store: AdapterStore) -> None:
    publish(store), publish(store)
    shutil.rmtree(store.get("tickets@2").path)
    assert publish(store) == "tickets@3"


def _change(home: str, how: str) -> None:
    store = AdapterStore(Path(home))
    {"promote": lambda: store.promote("classification", "tickets@2"), "delete": lambda: store.delete("tickets@2"),
     "roll back": lambda: store.roll_back("classification")}[how]()  # fmt: skip


@pytest.mark.parametrize("how", ["promote", "delete", "roll back"])
def test_r31_whoever_changes_what_is_live_waits_until_nobody_else_does(tmp_path: Path, how: str) -> None:
    store = AdapterStore(tmp_path)
    publish(store), publish(store)
    store.promote("classification", "tickets@1")
    before, lock = store.history("classification"), tmp_path / "live" / ".lock"
    with files.lock(lock):
        other = multiprocessing.get_context("spawn").Process(target=_change, args=(str(tmp_path), how))
        other.start()
        wait(lambda: f" {other.pid} " in blocked(lock.stat().st_ino))
        assert store.history("classification") == before and len(store.versions()) == 2
    other.join()
    assert len(store.history("classification")) == len(before) + 1


def test_promoting_what_is_live_leaves_the_way_back(store: AdapterStore) -> None:
    publish(store), publish(store)
    store.promote("classification", "tickets@1")
    store.promote("classification", "tickets@2")
    store.promote("classification", "tickets@2")
    assert store.roll_back("classification") == "tickets@1"


def test_a_version_of_another_tab_cannot_be_promoted(store: AdapterStore) -> None:
    publish(store, plugin="summarization")
    with pytest.raises(AdapterError, match="not a version of classification"):
        store.promote("classification", "tickets@1")


@pytest.mark.parametrize("name", ["", "base", "live", "Tickets", "../up", "a/b", "a" * 41, "ünï", ".hidden", "a\0b"])
def test_r16_names_that_could_be_paths_or_words_are_refused(name: str) -> None:
    with pytest.raises(AdapterError):
        check_name(name)


@pytest.mark.parametrize("ref", ["../other/adapters/tickets@1", "../other/adapters/tickets"])
def test_r16_a_reference_leads_nowhere_else(store: AdapterStore, ref: str) -> None:
    publish(store)
    publish(AdapterStore(store.root.parent / "other"))
    assert (store.root / "../other/adapters/tickets/1" / MANIFEST).is_file()
    with pytest.raises(AdapterError, match="There are: tickets@1"):
        store.get(ref)


@pytest.mark.parametrize("ref", ["tickets@99", "tickets@-1", "../tickets@1", "tickets@1/..", "@1", "", "tickets@١"])
def test_unknown_references_name_what_there_is(store: AdapterStore, ref: str) -> None:
    publish(store)
    with pytest.raises(AdapterError, match="There are: tickets@1"):
        store.get(ref)


def _publish_many(home: str) -> list[str]:
    store = AdapterStore(Path(home))
    return [publish(store) for _ in range(5)]


def test_publishers_in_several_processes_never_share_a_number(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        refs = [ref for some in pool.map(_publish_many, [str(tmp_path)] * 3) for ref in some]
    assert sorted(refs) == sorted(f"tickets@{n}" for n in range(1, 16))
    assert len(AdapterStore(tmp_path).versions()) == 15


def test_manifest_lists_every_file_with_its_hash(store: AdapterStore) -> None:
    publish(store)
    version = store.get("tickets@1")
    manifest = json.loads((version.path / MANIFEST).read_text())
    assert manifest["files"] == {
        "adapter_model.safetensors": {"size": 7, "sha256": files.sha256(version.path / "adapter_model.safetensors")}
    }
