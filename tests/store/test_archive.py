"""store/archive.py: one adapter is unpacked from a zip or a folder, and everything unsafe is refused."""

from __future__ import annotations

import json
import stat
import zipfile
from pathlib import Path

import pytest

from errors import AdapterError
from store import archive
from store.adapters import WEIGHTS
from store.archive import CONFIG

PARTS = {CONFIG: b'{"r": 4}', WEIGHTS: b"weights"}


def packed(tmp: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    path = tmp / "theirs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o777) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def taken(source: Path, tmp: Path) -> archive.UnpackedAdapter:
    (tmp / "out").mkdir()
    found = archive.unpack(source, tmp / "out")
    assert [path.name for path in (tmp / "out").iterdir()] == [WEIGHTS]
    assert (tmp / "out" / WEIGHTS).read_bytes() == b"weights"
    return found


@pytest.mark.parametrize("inside", ["", "lora/", "tickets/3/"])
def test_an_adapter_is_found_wherever_it_lies_in_a_zip(tmp_path: Path, inside: str) -> None:
    names = {CONFIG: b'{"r": 4}', WEIGHTS: b"weights", "optimizer.pt": b"code", ".DS_Store": b""}
    source = packed(tmp_path, {inside + name: content for name, content in names.items()})
    found = taken(source, tmp_path)
    assert found.config == {"r": 4} and found.left_out == [f"{inside}.DS_Store", f"{inside}optimizer.pt"]


def test_a_folder_is_taken_but_nothing_that_a_link_points_at(tmp_path: Path) -> None:
    source = tmp_path / "theirs"
    source.mkdir()
    for name, content in PARTS.items():
        (source / name).write_bytes(content)
    (source / "config.json").symlink_to("/etc/hostname")
    assert taken(source, tmp_path).labels == []
    (source / WEIGHTS).unlink()
    (source / WEIGHTS).symlink_to(tmp_path / "out" / WEIGHTS)
    with pytest.raises(AdapterError, match=f"holds no {WEIGHTS}"):
        archive.unpack(source, tmp_path / "out")


@pytest.mark.parametrize(
    ("extra", "labels", "prompt"),
    [
        ({"config.json": {"id2label": {"10": "c", "2": "b", "1": "a"}}}, ["a", "b", "c"], None),
        ({"config.json": {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}}, [], None),
        ({"config.json": {"id2label": {"0": 3}}}, [], None),
        ({"manifest.json": {"labels": ["x", "y"], "prompt": "Do: {text}"}}, ["x", "y"], "Do: {text}"),
        ({"manifest.json": {"labels": "xy", "prompt": 3}}, [], None),
    ],
)
def test_labels_and_prompt_are_read_from_either_file(tmp_path: Path, extra, labels, prompt) -> None:
    extra = {name: json.dumps(value).encode() for name, value in extra.items()}
    found = taken(packed(tmp_path, PARTS | extra), tmp_path)
    assert (found.labels, found.prompt) == (labels, prompt)


NOT_PLAIN = ["../adapter_config.json", "/etc/passwd", "a/../../b", "a\\b", "c:x", "a//b", "./a", "bad\x1bname"]
REFUSED = [
    *((PARTS | {name: b""}, 0, "not a plain name") for name in NOT_PLAIN),
    *((PARTS, kind, "a link or a device") for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR)),
    ({CONFIG: b"{}", "adapter_model.bin": b"code"}, 0, r"adapter_model\.bin.*can run code.*save_pretrained"),
    ({"a.txt": b""}, 0, "holds no adapter_config.json"),
    ({"config.json": b"{}", "model.safetensors": b""}, 0, "It looks like a whole model"),
    ({CONFIG: b"{}", f"b/{CONFIG}": b"{}", WEIGHTS: b""}, 0, "holds 2 adapters"),
    ({CONFIG: b"[]", WEIGHTS: b""}, 0, "not a JSON object"),
    ({CONFIG: b"{", WEIGHTS: b""}, 0, "not a JSON object"),
    ({CONFIG: b"{}", f"b/{WEIGHTS}": b""}, 0, f"holds no {WEIGHTS}"),
]


@pytest.mark.parametrize(("files", "mode", "why"), REFUSED)
def test_a_zip_that_is_not_one_safe_adapter_is_refused(tmp_path: Path, files, mode: int, why: str) -> None:
    source = packed(tmp_path, files, mode)
    with pytest.raises(AdapterError, match=why):
        archive.unpack(source, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {source.name, WEIGHTS}


def test_a_file_larger_than_its_limit_is_refused_whatever_the_zip_says(tmp_path: Path, monkeypatch) -> None:
    source = packed(tmp_path, {CONFIG: b"{}", WEIGHTS: b"0" * 3_000_000})
    assert source.stat().st_size < 10_000, "it packs well"
    monkeypatch.setattr(archive, "MOST_BYTES", 2_000_000)
    with pytest.raises(AdapterError, match="larger than"):
        archive.unpack(source, tmp_path)
    monkeypatch.setattr(archive, "JSON_LIMIT", 1)
    with pytest.raises(AdapterError, match="not a JSON object, or"):
        archive.unpack(packed(tmp_path, PARTS), tmp_path)
    monkeypatch.setattr(archive, "MOST_FILES", 1)
    with pytest.raises(AdapterError, match="holds 2 files"):
        archive.unpack(packed(tmp_path, PARTS), tmp_path)


def test_a_damaged_or_encrypted_zip_is_refused(tmp_path: Path) -> None:
    source = packed(tmp_path, {CONFIG: b"{}", WEIGHTS: bytes(range(256)) * 64})
    content = bytearray(source.read_bytes())
    content[content.index(WEIGHTS.encode()) + len(WEIGHTS) + 40] ^= 0xFF
    source.write_bytes(content)
    with pytest.raises(AdapterError, match="damaged"):
        archive.unpack(source, tmp_path)
    content = bytearray(packed(tmp_path, PARTS).read_bytes())
    for at in (content.index(b"PK\x03\x04") + 6, content.index(b"PK\x01\x02") + 8):
        content[at] |= 1
    source.write_bytes(content)
    with pytest.raises(AdapterError, match="encrypted"):
        archive.unpack(source, tmp_path)


@pytest.mark.parametrize(
    ("name", "why"),
    [("gone.zip", "no such file or folder"), ("notes.txt", "neither a zip nor a folder"),
     ("adapter.pt", r"\.pt files can run code")],
)  # fmt: skip
def test_a_path_of_anything_else_is_refused(tmp_path: Path, name: str, why: str) -> None:
    if name != "gone.zip":
        (tmp_path / name).write_text("hello")
    with pytest.raises(AdapterError, match=why):
        archive.unpack(tmp_path / name, tmp_path)
