"""A version as one file to hand on: a zip that unpacks as `<name>/<n>/` in the folder of adapters of any Graft."""

from __future__ import annotations

import uuid
import zipfile
from pathlib import Path

from errors import AdapterError
from store import files
from store.adapters import MANIFEST, Version


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
