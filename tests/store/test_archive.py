"""store/archive.py: what of a zip or a folder is taken, and what is refused unseen."""

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


def packed(tmp: Path, files: dict[str, bytes], **entry: object) -> Path:
    path = tmp / "theirs.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            for key, value in entry.items():
                setattr(info, key, value)
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def folder(tmp: Path, files: dict[str, bytes]) -> Path:
    path = tmp / "theirs"
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def taken(source: Path, tmp: Path) -> archive.Parcel:
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
    source = folder(tmp_path, PARTS)
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
def test_labels_and_prompt_are_read_where_they_are_told(tmp_path: Path, extra, labels, prompt) -> None:
    told = {name: json.dumps(value).encode() for name, value in extra.items()}
    found = taken(packed(tmp_path, PARTS | told), tmp_path)
    assert (found.labels, found.prompt) == (labels, prompt)


@pytest.mark.parametrize(
    "name", ["../adapter_config.json", "/etc/passwd", "a/../../b", "a\\b", "c:x", "a//b", "./a", "bad\x1bname"]
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(AdapterError, match="not a plain name"):
        archive.unpack(packed(tmp_path, PARTS | {name: b""}), tmp_path)
    assert not (tmp_path / WEIGHTS).exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(AdapterError, match="a link or a device"):
        archive.unpack(packed(tmp_path, PARTS, external_attr=(kind | 0o777) << 16), tmp_path)


def test_weights_that_can_run_code_are_refused_with_the_way_out(tmp_path: Path) -> None:
    source = packed(tmp_path, {CONFIG: b"{}", "adapter_model.bin": b"code"})
    with pytest.raises(AdapterError, match=r"adapter_model.bin.*can run code") as caught:
        archive.unpack(source, tmp_path)
    assert "safetensors" in caught.value.next
    (tmp_path / "adapter.pt").write_bytes(b"code")
    with pytest.raises(AdapterError, match=r"\.pt files can run code"):
        archive.unpack(tmp_path / "adapter.pt", tmp_path)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a.txt": b""}, "holds no adapter_config.json"),
        ({"config.json": b"{}", "model.safetensors": b""}, "It looks like a whole model"),
        ({CONFIG: b"{}", f"b/{CONFIG}": b"{}", WEIGHTS: b""}, "holds 2 adapters"),
        ({CONFIG: b"[]", WEIGHTS: b""}, "not a JSON object"),
        ({CONFIG: b"{", WEIGHTS: b""}, "not a JSON object"),
        ({CONFIG: b"{}", f"b/{WEIGHTS}": b""}, f"holds no {WEIGHTS}"),
    ],
)
def test_a_zip_without_one_adapter_is_refused(tmp_path: Path, files, why: str) -> None:
    with pytest.raises(AdapterError, match=why):
        archive.unpack(packed(tmp_path, files), tmp_path)


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


def test_a_path_that_is_not_there_or_no_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="no such file or folder"):
        archive.unpack(tmp_path / "gone.zip", tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(AdapterError, match="neither a zip nor a folder"):
        archive.unpack(tmp_path / "notes.txt", tmp_path)
