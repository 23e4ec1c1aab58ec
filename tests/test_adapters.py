"""store/adapters.py: versions are whole or absent, immutable, and one pointer a tab says which is live."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from errors import AdapterError
from store import files
from store.adapters import MANIFEST, AdapterStore, check_name


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
def test_a_folder_that_is_not_whole_does_not_exist(store: AdapterStore, damage: str) -> None:
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
def test_names_that_could_be_paths_or_words_are_refused(name: str) -> None:
    with pytest.raises(AdapterError):
        check_name(name)


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
