"""A version as one file to hand on: a zip that unpacks as `<name>/<n>/` in the folder of adapters of any Graft."""

from __future__ import annotations

import zipfile
from pathlib import Path

from errors import AdapterError
from store.adapters import MANIFEST, Version


def pack(version: Version, target: Path) -> Path:
    """Write `target`, a zip of the files that the manifest lists; raises `AdapterError` for a damaged version."""
    version.check_files()
    inside = f"{version.name}/{version.number}"
    try:
        with zipfile.ZipFile(target, "x", zipfile.ZIP_DEFLATED) as archive:
            for name in (*version.manifest["files"], MANIFEST):
                archive.write(version.path / name, f"{inside}/{name}")
    except FileExistsError as error:
        raise AdapterError(f"{target} is already there.", "", "Choose another name.") from error
    return target
