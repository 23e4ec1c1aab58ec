"""Unpack an adapter that was made elsewhere, from a zip or a folder; pack a version as a zip.

Only the weights, as safetensors, and three JSON files are read, each up to a size limit whatever the archive states.
"""

from __future__ import annotations

import json
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from errors import AdapterError
from store import files
from store.adapters import WEIGHTS, Version
from store.files import JSON_LIMIT, UNSAFE
from store.staging import MANIFEST

CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"
"""The configuration of the whole model, which many classifiers' adapters come with; it names the labels."""
MOST_FILES = 1_000
MOST_BYTES = 4 * 2**30
"""Bytes of the weights; rank 256 on every layer of a model of 7 billion parameters takes less."""
PLAIN = re.compile(r"(?!\.{1,2}$)[^\x00-\x1f\\:]{1,120}")
"""A file's or folder's name: no way up or out, and no control characters for a terminal."""
CHUNK = 1 << 20

Files = Mapping[PurePosixPath, Any]
"""Functions that open each file, by its path inside."""


@dataclass(frozen=True)
class UnpackedAdapter:
    """The description of an adapter whose weights were unpacked."""

    name: str
    """Name of the zip or folder."""
    config: Mapping[str, Any]
    """Content of adapter_config.json."""
    labels: list[str]
    """A classifier's labels in the order of its logits; empty where they are not named."""
    prompt: str | None
    """Prompt of a version that Graft exported."""
    left_out: list[str]
    """Files that were not read."""


def unpack(source: Path, target: Path) -> UnpackedAdapter:
    """Copy the weights of a zip or folder into the folder `target`, and read the files that describe them.

    Raises `AdapterError` for a source that is no adapter, is not safe to open, or is too large.
    """
    with _opened(source) as contents:
        folder = _adapter_folder(contents, source.name)
        here = {path.name: path for path in contents if path.parent == folder}
        if WEIGHTS not in here:
            raise _no_weights(here, source.name)
        _copy(contents[here[WEIGHTS]](), target / WEIGHTS, source.name)
        taken = [name for name in (CONFIG, MODEL_CONFIG, MANIFEST) if name in here]
        facts = {name: _json(contents[here[name]](), name, source.name) for name in taken}
    manifest = facts.get(MANIFEST, {})
    prompt = manifest.get("prompt")
    left_out = sorted(str(path) for path in contents if path.name not in (*taken, WEIGHTS) or path.parent != folder)
    labels = _strings(manifest.get("labels")) or _label_names(facts.get(MODEL_CONFIG, {}))
    return UnpackedAdapter(source.name, facts[CONFIG], labels, prompt if isinstance(prompt, str) else None, left_out)


@contextmanager
def _opened(source: Path) -> Iterator[Files]:
    if source.is_dir():
        # The files right in the folder; links are not followed.
        plain = (path for path in source.iterdir() if path.is_file() and not path.is_symlink())
        yield {PurePosixPath(path.name): lambda path=path: path.open("rb") for path in plain}
    elif zipfile.is_zipfile(source):
        try:
            with zipfile.ZipFile(source) as archive:
                yield _of_zip(archive, source.name)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, RuntimeError) as error:
            raise refusal(source.name, f"The zip is damaged or of an unusual kind: {error}.") from error
    elif source.exists():
        why = f"{source.suffix} files can run code." if source.suffix in UNSAFE else "It is neither a zip nor a folder."
        raise refusal(source.name, why)
    else:
        raise refusal(str(source), "There is no such file or folder.")


def _of_zip(archive: zipfile.ZipFile, name: str) -> Files:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > MOST_FILES:
        raise refusal(name, f"It holds {len(entries):,} files; at most {MOST_FILES:,} are looked at.")
    for entry in entries:
        if not all(PLAIN.fullmatch(part) for part in entry.filename.split("/")):
            raise refusal(name, f"It holds {entry.filename[:80]!r}, which is not a plain name of a file.")
        # The upper half has the file's mode on systems that have one.
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
            raise refusal(name, f"{entry.filename} in it is a link or a device, not a file.")
        if entry.flag_bits & 1:
            raise refusal(name, f"{entry.filename} in it is encrypted.")
    paths = {PurePosixPath(entry.filename): entry for entry in entries}
    if len(paths) != len(entries):
        raise refusal(name, "It holds two files of the same name.")
    return {path: lambda entry=entry: archive.open(entry) for path, entry in paths.items()}


def _adapter_folder(contents: Files, name: str) -> PurePosixPath:
    """Return the folder inside that holds the only adapter."""
    found = [path.parent for path in contents if path.name == CONFIG]
    if not found:
        base = "It looks like a whole model." if any(path.name == MODEL_CONFIG for path in contents) else ""
        raise refusal(name, f"It holds no {CONFIG}. {base}".strip())
    if len(found) > 1:
        raise refusal(name, f"It holds {len(found)} adapters: {', '.join(sorted(map(str, found))[:3])}.")
    return found[0]


def _copy(opened: IO[bytes], target: Path, name: str) -> None:
    """Copy at most `MOST_BYTES`; the size that an archive states is not trusted."""
    written = 0
    with opened as source, target.open("wb") as file:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > MOST_BYTES or written > shutil.disk_usage(target.parent).free:
                limit = f"{MOST_BYTES / 2**30:.0f} GB"
                raise refusal(name, f"{target.name} is larger than {limit} or than the disk has room for.")
            file.write(chunk)


def _json(opened: IO[bytes], file: str, name: str) -> dict[str, Any]:
    with opened as source:
        content = source.read(JSON_LIMIT + 1)
    try:
        value = json.loads(content) if len(content) <= JSON_LIMIT else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise refusal(name, f"Its {file} is not a JSON object, or has more than {JSON_LIMIT // 10**6} MB.")
    return value


def _label_names(config: Mapping[str, Any]) -> list[str]:
    """Return the names of labels in a model's configuration; empty if they are transformers' placeholders."""
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
        return refusal(name, f"It holds no {WEIGHTS} beside its {CONFIG}.")
    return refusal(
        name,
        f"Its weights are in {unsafe[0]}, a kind of file that can run code when it is opened; Graft opens none.",
        "Where you trust it, load it with PEFT and save it again: save_pretrained writes safetensors.",
    )


def refusal(name: str, why: str, next: str = "Nothing was published.") -> AdapterError:
    """Return the error for an adapter that is not imported."""
    return AdapterError(f"{name} was refused.", why, next)


def pack(version: Version, target: Path) -> Path:
    """Write `target`, a zip of the files that the manifest lists, whole or not at all; returns it.

    Raises `AdapterError` for a damaged version or if `target` exists, and `OSError`.
    """
    version.check_files()
    if target.exists():
        raise AdapterError(f"{target} is already there.", "", "Choose another name.")
    inside, packed = f"{version.name}/{version.number}", files.staging_name(target.parent)
    try:
        with zipfile.ZipFile(packed, "x", zipfile.ZIP_DEFLATED) as archive:
            for name in (*version.manifest["files"], MANIFEST):
                archive.write(version.path / name, f"{inside}/{name}")
        files.sync(packed)
        packed.rename(target)
    finally:
        packed.unlink(missing_ok=True)
    return target
