"""A profiler that notes the modules of Graft whose functions run, in this process and in those that it starts.

A function that an import calls does not count; neither do `__init__` files. Nothing heavy is imported here: what a
child imports, and in which order, is what the product decides.
"""

from __future__ import annotations

import runpy
import shlex
import sys
import tempfile
import threading
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType

ROOT = Path(__file__).resolve().parents[2]
PARSER = "_open_delimited"
"""Function whose calls are counted: each parses a CSV."""


class Recorder:
    """Collects the modules whose functions run in this process, in every thread that starts after `install`."""

    def __init__(self, file: Path | None = None) -> None:
        """`file` gets each module at once, since a child may be killed when its work is done."""
        self.modules = set[str]()
        """Paths below the repository."""
        self._file, self._others = file, set[CodeType]()

    def install(self) -> None:
        """Begin to record."""
        threading.setprofile(self)
        sys.setprofile(self)

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Record a call, as `sys.setprofile` describes it."""
        code = frame.f_code
        if event != "call" or code in self._others:
            return
        path = Path(code.co_filename)
        ours = path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "tests") and path.stem != "__init__"
        if not ours or not code.co_flags & CO_OPTIMIZED:  # else it is the body of a module or of a class
            self._others.add(code)
            return
        module = str(path.relative_to(ROOT))
        if module not in self.modules and not _is_importing(frame):
            self.modules.add(module)
            self._note(module)
        if code.co_name == PARSER:
            self._note(PARSER)

    def _note(self, line: str) -> None:
        if self._file:
            with self._file.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


def _is_importing(frame: FrameType | None) -> bool:
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def interpreter(folder: Path) -> str:
    """Write a command into `folder` that runs Python modules as this interpreter does, recorded in files beside it."""
    command = folder / "python"
    start = shlex.join([sys.executable, "-m", "tests.helpers.recorder", str(folder)])
    command.write_text(f'#!/bin/sh\nexec {start} "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return str(command)


def run_child(folder: Path, command: list[str]) -> None:
    """Run `-m MODULE ARGUMENTS` in this process and record it; what it starts is recorded as well."""
    sys.executable = str(folder / "python")
    sys.argv = command[1:]
    _, file = tempfile.mkstemp(".modules", dir=folder)
    Recorder(Path(file)).install()
    try:
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    finally:
        sys.setprofile(None)  # the interpreter takes this module apart before its last calls


if __name__ == "__main__":
    run_child(Path(sys.argv[1]), sys.argv[2:])
