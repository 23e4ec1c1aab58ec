"""Several files that are read as one: which split of which Hub data set they are, in a small file beside them.

`NAME.rows` is JSON that stands wherever the path of a file of rows does. It is written by this program alone; a file
with that ending that a user brings is never opened on the page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from errors import DataError
from store import files

SUFFIX = ".rows"


@dataclass(frozen=True)
class Selection:
    """A split of a data set at one commit, and where its files lie."""

    id: str
    revision: str
    config: str
    split: str
    files: tuple[str, ...]
    """Paths; relative ones begin in the folder of the file that says so."""
    labels: Mapping[str, list[str]] = field(default_factory=dict)
    """Names of the labels of a column, by the number that stands for each."""

    @property
    def source(self) -> dict[str, str]:
        """What names these rows for ever, wherever they lie."""
        return {"id": self.id, "revision": self.revision, "config": self.config, "split": self.split}

    def write(self, path: Path) -> None:
        """Put it into `path`, whole or not at all."""
        files.write_json(path, asdict(self))

    def paths(self, place: Path) -> list[Path]:
        """The files of the selection that lies in `place`, in order."""
        return [place.parent / name for name in self.files]


def is_selection(path: Path) -> bool:
    """Whether a path means several files."""
    return path.suffix == SUFFIX


def read_selection(path: Path) -> Selection:
    """What was written into `path`; raises `DataError`."""
    try:
        facts: dict[str, Any] = files.read_json(path)
        return Selection(**{**facts, "files": tuple(facts["files"])})
    except FileNotFoundError as error:
        raise DataError(f"{path.name} is not there.", "", "Fetch the data set again.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path.name} cannot be read.", "It is damaged.", "Fetch the data set again.") from error


def parts(path: Path) -> list[Path]:
    """The files of rows that a path means: its own, or those of a selection. Raises `DataError`."""
    return read_selection(path).paths(path) if is_selection(path) else [path]


def title(path: Path) -> str:
    """What people call the rows in a path."""
    return path.stem.replace("--", "/", 1) if is_selection(path) else path.name


def decides(path: Path) -> str:
    """What besides the content of its files decides which rows a selection has, as text."""
    return json.dumps(read_selection(path).labels, sort_keys=True)
