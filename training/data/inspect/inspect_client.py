"""Ask a child process, which has little memory, for the report on a file of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from errors import DataError
from settings import child_environment
from store import processes
from tasks import Columns, TabSpec
from training.data.files.formats import is_selection, parts, title
from training.data.inspect.report import Report
from training.data.rows import UnknownColumns

TIMEOUT_SECONDS = 90
BYTES_PER_SECOND = 5e6
"""Speed at which a slow machine reads a file of rows."""
FRUGAL = {"MALLOC_ARENA_MAX": "2", "RAYON_NUM_THREADS": "4", "TRANSFORMERS_VERBOSITY": "error"}
"""For a child whose address space is limited: many threads would use it up, each with memory of its own."""


@dataclass(frozen=True)
class Inspection:
    """A request for a report: a file of rows, the tab that would learn from it, and how."""

    path: Path
    spec: TabSpec
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Columns of the file that the user chose."""
    max_length: int = 512
    """Most tokens of one row."""
    held_out: Path | None = None
    """A file of the user's own rows to compare on."""

    @property
    def columns(self) -> Columns:
        """The tab's columns; raises `DataError` for a tab that names none."""
        if self.spec.columns is None:
            raise DataError(f"The tab {self.spec.name} does not learn.", "It names no columns.")
        return self.spec.columns

    def key(self) -> tuple[object, int]:
        """Return (rows, longest length): equal keys mean equal reports, equal first parts the same rows."""
        files = [(part.absolute(), *_stamp(part)) for part in self._files()]
        return (*files, self.spec, tuple(sorted(self.mapping.items()))), self.max_length

    def reports(self, home: Path) -> Iterator[Report]:
        """Yield the report, each time that more of it is known; closing the iterator ends the child.

        Raises `DataError`.
        """
        return map(Report.from_json, self._lines(home))

    def write_bad_rows(self, home: Path, out: Path) -> int:
        """Write every record that is left out as JSONL into `out`; returns their number. Raises `DataError`."""
        [line] = self._lines(home, str(out.absolute()))
        return int(line)

    def to_json(self) -> str:
        """Return the request as JSON, with absolute paths."""
        held_out = self.held_out.absolute() if self.held_out else None
        return json.dumps(asdict(self) | {"path": self.path.absolute(), "held_out": held_out}, default=str)

    @classmethod
    def from_json(cls, text: str) -> Inspection:
        """Parse what `to_json` returned."""
        return TypeAdapter(cls).validate_python(json.loads(text))

    def _lines(self, home: Path, *arguments: str) -> Iterator[str]:
        """Yield the lines that the child prints."""
        name, _ = title(self.path), self.columns
        died = DataError(f"{name} cannot be read.", "Reading it needs too much memory, or it is damaged.")
        try:
            yield from processes.lines(
                processes.python("training.data.inspect", self.to_json(), *arguments),
                raises=lambda facts: (UnknownColumns if "columns" in facts else DataError).from_dict(facts),
                died=died,
                environment=child_environment(GRAFT_HOME=str(home), **FRUGAL),
                seconds=self._patience(),
            )
        except TimeoutError as error:
            what = f"{name} takes too long to read."
            raise DataError(what, "It may be damaged.", "Try a part of it.") from error

    def _patience(self) -> float:
        """Return the seconds after which the child must be stuck."""
        files = [part for part in self._files() if part.exists()]
        return TIMEOUT_SECONDS + sum(part.stat().st_size for part in files) / BYTES_PER_SECOND

    def _files(self) -> list[Path]:
        """Return every file that is read, selections included."""
        chosen = [path for path in (self.path, self.held_out) if path]
        return [*chosen, *(part for path in chosen if is_selection(path) for part in parts(path))]


def _stamp(path: Path) -> tuple[int, int]:
    """Return time and size of a file, which change when it is written; zeros for a missing one."""
    return (found.st_mtime_ns, found.st_size) if path.exists() and (found := path.stat()) else (0, 0)
