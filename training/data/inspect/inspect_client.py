"""What the page and the command line ask of a file of rows, answered by a child process with little memory."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from errors import DataError
from settings import REPOSITORY, child_environment
from tasks import TASKS, TabSpec
from training.data.files.selection import is_selection, parts, title
from training.data.inspect.report import Report
from training.data.rows import UnknownColumns

TIMEOUT_S = 90
READ_A_SECOND = 5e6
"""Bytes of a file of rows that a slow machine reads in a second."""
FRUGAL = {"MALLOC_ARENA_MAX": "2", "RAYON_NUM_THREADS": "4", "TRANSFORMERS_VERBOSITY": "error"}
"""For a child whose address space is limited: many threads would take it up, each with memory of its own."""


@dataclass(frozen=True)
class Inspection:
    """A file of rows, the tab that would learn from it, and how."""

    path: Path
    spec: TabSpec
    mapping: Mapping[str, str] = field(default_factory=dict)
    """Columns of the file that were chosen."""
    max_length: int = 512
    """Tokens of one row."""
    held_out: Path | None = None
    """Rows of the user's own to compare on."""

    def key(self) -> tuple[object, int]:
        """Equal for what would find the same: of which rows and how they are read, and how long they may be."""
        files = [(part.absolute(), *_stamp(part)) for part in self._files()]
        return (*files, self.spec, tuple(sorted(self.mapping.items()))), self.max_length

    def reports(self, home: Path) -> Iterator[Report]:
        """The report, each time that more of it is known. Raises `DataError`; ends the child where nobody waits."""
        spec, options = self.spec, [] if self.held_out is None else ["--held-out", str(self.held_out.absolute())]
        options += ["--model", spec.model, "--task", spec.task, "--max-length", str(self.max_length)]
        options += [f"--prompt={spec.prompt}"]
        return map(Report.from_json, self._lines(home, options))

    def write_bad_rows(self, home: Path, out: Path) -> int:
        """Write every row that is left out as JSONL into `out`; how many. Raises `DataError`."""
        [line] = self._lines(home, ["--bad-rows", str(out.absolute())])
        return int(json.loads(line)["written"])

    def _lines(self, home: Path, options: Sequence[str]) -> Iterator[str]:
        """What the child prints, line by line."""
        if self.spec.columns is None:
            raise DataError(f"The tab {self.spec.name} does not learn.", "It names no columns.")
        wanted = {part: name for part, name in vars(self.spec.columns).items() if name}
        command = [sys.executable, "-m", "training.data.inspect", str(self.path.absolute()), *options]
        command += ["--answers", TASKS[self.spec.task].answers, f"--wanted={json.dumps(wanted)}"]
        command += [f"--columns={json.dumps(dict(self.mapping))}"]
        with subprocess.Popen(
            command, cwd=REPOSITORY, env=child_environment(GRAFT_HOME=str(home), **FRUGAL), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ) as child:  # fmt: skip
            late = threading.Timer(self._patience(), child.kill)
            late.start()
            try:
                yield from self._told(child, late)
            finally:
                late.cancel()
                child.kill()

    def _told(self, child: subprocess.Popen[str], late: threading.Timer) -> Iterator[str]:
        last = ""
        for line in child.stdout or ():
            last = line
            if not line.startswith('{"what": '):
                yield line
        code = child.wait()
        if late.finished.is_set():
            raise DataError(f"{title(self.path)} takes too long to read.", "It may be damaged.", "Try a part of it.")
        if code == 2 and last.startswith('{"what": '):
            told = json.loads(last)
            raise UnknownColumns(**told) if "columns" in told else DataError(**told)
        if code:
            raise DataError(
                f"{title(self.path)} cannot be read.", "Reading it needs too much memory, or it is damaged."
            )

    def _patience(self) -> float:
        """Seconds after which the child has surely been caught in something."""
        files = [part for part in self._files() if part.exists()]
        return TIMEOUT_S + sum(part.stat().st_size for part in files) / READ_A_SECOND

    def _files(self) -> list[Path]:
        """Every file that is read, and those that say which."""
        chosen = [path for path in (self.path, self.held_out) if path]
        return [*chosen, *(part for path in chosen if is_selection(path) for part in parts(path))]


def _stamp(path: Path) -> tuple[int, int]:
    """What changes when somebody writes to a file; zeros where there is none."""
    return (found.st_mtime_ns, found.st_size) if path.exists() and (found := path.stat()) else (0, 0)
