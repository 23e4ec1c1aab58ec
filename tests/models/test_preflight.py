"""models/preflight.py: a folder with code, pickles, or paths out of it is refused before it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import ModelError
from models.preflight import CODE_KEYS, check_model
from tests.helpers.fake_hub import CONFIG, model_files

ID = "org/name"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model_files(tmp_path / "model")
    return tmp_path / "model"


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_model(folder, ID)
    assert ID in caught.value.what
    assert caught.value.next
    return caught.value.why


def test_r02_a_folder_without_config_or_safetensors_is_refused(folder: Path, tmp_path: Path) -> None:
    assert check_model(folder, ID) == CONFIG
    assert "no config.json" in refusal(tmp_path / "nothing")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin" in refusal(folder)
    (folder / "pytorch_model.bin").unlink()
    assert "no weights" in refusal(folder)
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert "It is an adapter" in refusal(folder)


@pytest.mark.parametrize("key", sorted(CODE_KEYS))
@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer_config.json", "preprocessor_config.json",
             "processor_config.json", "adapter_config.json"]
)  # fmt: skip
def test_r01_remote_code_at_any_depth_is_refused(folder: Path, name: str, key: str) -> None:
    (folder / name).write_text(json.dumps({**CONFIG, "text_config": [{"deep": {key: {"AutoModel": "evil.py"}}}]}))
    why = refusal(folder)
    assert "remote code" in why and name in why and key in why


@pytest.mark.parametrize("text", ["{", "[]", '"x"', "\xff", "[" * 100_000, '{"a":' * 100_000, "x" * 8_000_001])
def test_an_unreadable_or_huge_config_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    assert ("larger" if len(text) > 8_000_000 else "JSON") in refusal(folder)


def test_harmless_configurations_pass(folder: Path) -> None:
    (folder / "data_config.json").write_text("[1]")
    keys = {"vocab_file": "vocab.txt", "merges_file": None, "special_tokens_map_file": "/home/author/map.json"}
    (folder / "tokenizer_config.json").write_text(json.dumps(keys))
    (folder / "again.safetensors").symlink_to("model.safetensors")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"encoder.weight": "model.safetensors"}}')
    assert check_model(folder, ID) == CONFIG


@given(shard=st.one_of(st.text(max_size=30), st.sampled_from(
    ["../B/model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b.safetensors", "C:x.safetensors", "",
     "model.safetensors\n", "pytorch_model.bin", ".safetensors", "gone.safetensors",
     "9" * 400 + ".safetensors", "é" * 200 + ".safetensors"])))  # fmt: skip
def test_r05_shards_outside_the_folder_are_refused(shard: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("m") / "A"
    model_files(folder)
    model_files(folder.parent / "B")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"encoder.weight": shard}}))
    if shard != "model.safetensors":
        assert "index.json" in refusal(folder)


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {"a": 3}}])
def test_an_index_of_another_shape_is_refused(folder: Path, index: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "index.json" in refusal(folder)


@pytest.mark.parametrize("value", ["/etc/passwd", "../vocab.txt", "a/b", "a\\b", "..", "a" * 400, ["x"], {"a": "b"}])
def test_r05_a_vocabulary_elsewhere_is_refused(folder: Path, value: object) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"vocab_file": value}))
    assert "vocab_file" in refusal(folder)


def test_r05_chat_templates_with_odd_names_are_refused(folder: Path) -> None:
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("x")
    assert check_model(folder, ID) == CONFIG
    (folder / "additional_chat_templates" / "..x.jinja").write_text("x")
    assert "chat template" in refusal(folder)


@pytest.mark.parametrize("place", [".", "additional_chat_templates"])
def test_r05_links_that_leave_the_folder_are_refused(folder: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "secret").write_text("x")
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "link.jinja").symlink_to(tmp_path / "secret")
    assert "link" in refusal(folder)


def cache_layout(root: Path, shared: bool = False) -> Path:
    """A model as huggingface_hub keeps it: links from the snapshot to blobs, and from there to the shared store."""
    snapshot, blobs = root / "models--org--name" / "snapshots" / ("a" * 40), root / "models--org--name" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name, data in model_files(root / "plain").items():
        (blobs / f"blob-{name}").write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/blob-{name}")
    if shared:
        (root / "blobs").mkdir()
        (root / "blobs" / ".huggingface-shared-blobs").write_text("1")
        (blobs / "blob-model.safetensors").rename(root / "blobs" / "hash")
        (blobs / "blob-model.safetensors").symlink_to("../../blobs/hash")
    return snapshot


@pytest.mark.parametrize("shared", [False, True])
def test_links_of_the_hugging_face_cache_pass(tmp_path: Path, shared: bool) -> None:
    assert check_model(cache_layout(tmp_path, shared), ID) == CONFIG


def test_r05_links_from_a_cache_to_another_repository_are_refused(tmp_path: Path) -> None:
    snapshot = cache_layout(tmp_path)
    (tmp_path / "models--other--secret" / "blobs").mkdir(parents=True)
    (tmp_path / "models--other--secret" / "blobs" / "x").write_text("x")
    (snapshot / "extra.json").symlink_to("../../../models--other--secret/blobs/x")
    assert "extra.json" in refusal(snapshot)
    (snapshot / "extra.json").unlink()
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.rename(tmp_path / "elsewhere")
    blobs.symlink_to(tmp_path / "elsewhere")
    assert "link" in refusal(snapshot)
