"""An adapter that somebody hands over, as a zip or a folder: what of it is taken, and what is refused unseen.

Nothing is unpacked that is not asked for: two files and the names of labels, by plain names, up to a size, each read
until its own limit whatever the archive says of it. Weights come from safetensors alone; files that can run code are
never opened.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import uuid
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from errors import AdapterError
from store import files
from store.adapters import MANIFEST, WEIGHTS, Version
from store.files import JSON_LIMIT, UNSAFE

CONFIG = "adapter_config.json"
LABELS = "config.json"
"""Beside many classifiers' adapters: the configuration of the model, with the names of its labels."""
MOST_FILES = 1_000
MOST_BYTES = 4 * 2**30
"""Of the weights: rank 256 on every layer of a model of 7 billion parameters is below it."""
PLAIN = re.compile(r"(?!\.{1,2}$)[^\x00-\x1f\\:]{1,120}")
"""A file's or folder's name: no way up or out, and nothing that a terminal would take for more than a name."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Parcel:
    """What was handed over, as far as it was taken."""

    name: str
    """Of the zip or folder."""
    config: Mapping[str, Any]
    """adapter_config.json."""
    labels: list[str]
    """The names of a classifier's labels in the order of its logits, where the parcel tells them."""
    prompt: str | None
    """Of a version that Graft exported."""
    left_out: list[str]
    """Files that were not taken."""


def unpack(source: Path, target: Path) -> Parcel:
    """Put the weights of a zip or folder into the folder `target`, and read what is said of them.

    Raises `AdapterError` for what is not an adapter, is not safe to open, or is too large.
    """
    with _opened(source) as files:
        folder = _folder(files, source.name)
        here = {name.name: name for name in files if name.parent == folder}
        if WEIGHTS not in here:
            raise _no_weights(here, source.name)
        _copy(files[here[WEIGHTS]](), target / WEIGHTS, MOST_BYTES, source.name)
        told = {name: _json(files[here[name]](), name, source.name)
                for name in (CONFIG, LABELS, MANIFEST) if name in here}  # fmt: skip
    manifest = told.get(MANIFEST, {})
    prompt = manifest.get("prompt")
    left_out = sorted(str(name) for name in files if name.name not in (*told, WEIGHTS) or name.parent != folder)
    labels = _strings(manifest.get("labels")) or _labels(told.get(LABELS, {}))
    return Parcel(source.name, told[CONFIG], labels, prompt if isinstance(prompt, str) else None, left_out)


Files = Mapping[PurePosixPath, Any]
"""What opens each file, by its path inside."""


@contextmanager
def _opened(source: Path) -> Iterator[Files]:
    if source.is_dir():
        yield _of_folder(source)
    elif zipfile.is_zipfile(source):
        try:
            with zipfile.ZipFile(source) as archive:
                yield _of_zip(archive, source.name)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
            raise refused(source.name, f"The zip is damaged or of an unusual kind: {error}.") from error
    elif source.exists():
        why = f"{source.suffix} files can run code." if source.suffix in UNSAFE else "It is neither a zip nor a folder."
        raise refused(source.name, why)
    else:
        raise refused(str(source), "There is no such file or folder.")


def _of_folder(source: Path) -> Files:
    """The files right in a folder; what a link points at is not taken."""
    found = (path for path in source.iterdir() if path.is_file() and not path.is_symlink())
    return {PurePosixPath(path.name): lambda path=path: path.open("rb") for path in found}


def _of_zip(archive: zipfile.ZipFile, name: str) -> Files:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MOST_FILES:
        raise refused(name, f"It holds {len(entries):,} files; at most {MOST_FILES:,} are looked at.")
    for entry in entries:
        if not all(PLAIN.fullmatch(part) for part in entry.filename.split("/")):
            raise refused(name, f"It holds {entry.filename[:80]!r}, which is not a plain name of a file.")
        # What a zip keeps of the file's mode, where it was made by a system that has any.
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise refused(name, f"{entry.filename} in it is a link or a device, not a file.")
        if entry.flag_bits & 1:
            raise refused(name, f"{entry.filename} in it is encrypted.")
    paths = {PurePosixPath(entry.filename): entry for entry in entries}
    if len(paths) != len(entries):
        raise refused(name, "It holds two files of the same name.")
    return {path: lambda entry=entry: archive.open(entry) for path, entry in paths.items()}


def _folder(files: Files, name: str) -> PurePosixPath:
    """Where in it the one adapter lies."""
    found = [path.parent for path in files if path.name == CONFIG]
    if not found:
        base = "It looks like a whole model." if any(path.name == LABELS for path in files) else ""
        raise refused(name, f"It holds no {CONFIG}. {base}".strip())
    if len(found) > 1:
        raise refused(name, f"It holds {len(found)} adapters: {', '.join(sorted(map(str, found))[:3])}.")
    return found[0]


def _copy(opened: IO[bytes], target: Path, most: int, name: str) -> None:
    """At most `most` bytes; an archive's own word for a size is not trusted."""
    written = 0
    with opened as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > most or written > shutil.disk_usage(target.parent).free:
                raise refused(
                    name, f"{target.name} is larger than {most / 2**30:.0f} GB or than the disk has room for."
                )
            file.write(chunk)


def _json(opened: IO[bytes], file: str, name: str) -> dict[str, Any]:
    with opened as source:
        content = source.read(JSON_LIMIT + 1)
    try:
        value = json.loads(content) if len(content) <= JSON_LIMIT else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise refused(name, f"Its {file} is not a JSON object, or has more than {JSON_LIMIT // 10**6} MB.")
    return value


def _labels(config: Mapping[str, Any]) -> list[str]:
    """The names in a model's configuration; none where they are those that nobody chose."""
    table = config.get("id2label")
    if not isinstance(table, dict) or not all(str(key).isdigit() for key in table):
        return []
    names = [table[key] for key in sorted(table, key=int)]
    return [] if all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names) else _strings(names)


def _strings(value: Any) -> list[str]:  # noqa: ANN401 - a JSON value
    return list(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else []


def _no_weights(here: Mapping[str, Any], name: str) -> AdapterError:
    unsafe = sorted(file for file in here if file.endswith(UNSAFE))
    if not unsafe:
        return refused(name, f"It holds no {WEIGHTS} beside its {CONFIG}.")
    return refused(
        name,
        f"Its weights are in {unsafe[0]}, a kind of file that can run code when it is opened; Graft opens none.",
        "Where you trust it, load it with PEFT and save it again: save_pretrained writes safetensors.",
    )


def refused(name: str, why: str, next: str = "Nothing was published.") -> AdapterError:
    """What is said of an adapter that is not taken in."""
    return AdapterError(f"{name} was refused.", why, next)


def pack(version: Version, target: Path) -> Path:
    """Write `target`, a zip of the files that the manifest lists, whole or not at all.

    Raises `AdapterError` for a damaged version or where `target` is there already, and `OSError`.
    """
    version.check_files()
    if target.exists():
        raise AdapterError(f"{target} is already there.", "", "Choose another name.")
    inside, packed = f"{version.name}/{version.number}", target.with_name(f"{files.STAGING_PREFIX}{uuid.uuid4().hex}")
    try:
        with zipfile.ZipFile(packed, "x", zipfile.ZIP_DEFLATED) as archive:
            for name in (*version.manifest["files"], MANIFEST):
                archive.write(version.path / name, f"{inside}/{name}")
        files.sync(packed)
        packed.rename(target)
    finally:
        packed.unlink(missing_ok=True)
    return target
