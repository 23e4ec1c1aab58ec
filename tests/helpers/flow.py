"""Records the modules whose functions run in a flow, in this process and in the children that it starts.

    python tests/helpers/flow.py OUT -m MODULE ARGUMENTS

runs a module as `python -m` does and appends the modules of ours, one per line, to OUT. Module bodies and calls that
they make while they are imported do not count.
"""

from __future__ import annotations

import inspect
import os
import runpy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = str(Path(__file__).resolve().parents[2]) + os.sep
OTHERS = ("tests", "bench", "data")


class Recorder:
    """A profile function: notes the file of every function of ours that is called while `on`."""

    def __init__(self) -> None:
        self.on = False
        self._files: dict[CodeType, str] = {}

    def __call__(self, frame: FrameType, event: str, arg: Any) -> None:
        code = frame.f_code
        if not self.on or event != "call" or code in self._files:
            return
        imported = frame.f_back is not None and frame.f_back.f_code.co_name == "<module>"
        ours = code.co_filename.startswith(ROOT) and code.co_flags & inspect.CO_OPTIMIZED and not imported
        if ours or not imported:
            self._files[code] = code.co_filename[len(ROOT) :] if ours else ""

    @property
    def modules(self) -> set[str]:
        """Paths of modules below the repository, tests, benchmarks and `__init__` aside."""
        return {f for f in self._files.values() if f and not f.startswith(OTHERS) and not f.endswith("__init__.py")}


@contextmanager
def profiled() -> Iterator[Recorder]:
    """Install a recorder in this thread and in all threads that start from here on."""
    recorder = Recorder()
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        yield recorder
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def interpreter(folder: Path) -> tuple[str, Path]:
    """Make a stand-in for `sys.executable` under which children record too; returns it and the file they append to."""
    out, script = folder / "modules", folder / "python"
    script.write_text(
        "#!/bin/sh\n"
        f'if [ "$1" = "-m" ]; then exec "{sys.executable}" "{__file__}" "{out}" "$@"; fi\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    script.chmod(0o755)
    return str(script), out


def main(out: str, _: str, module: str, *arguments: str) -> None:
    """Run `module` and append what it called, however it ends."""
    sys.path[0] = os.getcwd()
    sys.argv = [module, *arguments]
    with profiled() as recorder:
        recorder.on = True
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        finally:
            recorder.on = False
            with Path(out).open("a") as file:
                file.write("".join(f"{name}\n" for name in sorted(recorder.modules)))


if __name__ == "__main__":
    main(*sys.argv[1:])
