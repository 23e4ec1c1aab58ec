"""Start child processes, with an explicit environment and without a shell; read their lines, raise their errors.

A child of ours that refuses its work prints its `GraftError` as its last line, one JSON object {"what", "why", "next"},
and exits with `REFUSED`; `fail` does both. `lines` raises that error in the parent.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from errors import GraftError
from settings import REPOSITORY, child_environment

REFUSED = 2
"""Exit status of a child that has printed its error."""
POLL_SECONDS = 0.2
KILLED_FIRST = "1000"
"""Linux's `oom_score_adj` of a process that is ended before the page where memory runs out."""


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs one of our modules with this interpreter."""
    return [sys.executable, "-m", module, *arguments]


def fail(error: GraftError) -> int:
    """Print `error` for the parent; returns the exit status to end with."""
    print(json.dumps(error.to_dict()), flush=True)
    return REFUSED


def lines(
    command: Sequence[str],
    raises: Callable[[Mapping[str, str]], GraftError],
    died: GraftError,
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> Iterator[str]:
    """Yield each line that `command` prints, run in the repository's folder without standard input.

    `environment` replaces `child_environment()`. Raises `raises(facts)` for an error that the child printed, `died`
    where it ended otherwise, and `TimeoutError` after `seconds`. Closing the iterator kills the child and its group.
    """
    child = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=dict(child_environment() if environment is None else environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    late = threading.Timer(seconds or threading.TIMEOUT_MAX, _kill_group, [child])
    late.daemon = True
    late.start()
    last = ""
    try:
        make_expendable(child.pid)
        for line in child.stdout or ():
            last = line
            if not line.startswith('{"what": '):
                yield line
        status = child.wait()
    finally:
        over = late.finished.is_set()
        late.cancel()
        _kill_group(child)
        child.wait()
        if child.stdout:
            child.stdout.close()
    if over:
        raise TimeoutError(seconds)
    if status == REFUSED and last.startswith('{"what": '):
        raise raises(json.loads(last))
    if status:
        raise died


def succeeds(command: Sequence[str], text: str, seconds: float) -> bool:
    """Return whether `command`, with `text` as standard input, exits with 0 within `seconds`; its output is dropped."""
    try:
        ended = subprocess.run(
            command,
            input=text.encode("utf-8", "replace"),
            cwd=REPOSITORY,
            env=child_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


def run(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, log: Path, tick: Callable[[], None]
) -> int:
    """Run `command` in `folder` with all output in `log`, calling `tick` a few times a second; returns its exit status.

    The child is killed when `tick` raises, which is how a caller cancels it, and on Ctrl-C.
    """
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, env=dict(environment), cwd=folder
        ) as process,
    ):
        try:
            while True:
                with suppress(subprocess.TimeoutExpired):
                    return process.wait(POLL_SECONDS)
                tick()
        except BaseException:
            process.kill()
            raise


def start_detached(command: Sequence[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start `command` in the repository's folder and in a session of its own, so that it outlives this process.

    Its output is appended to `log`; its standard input is a pipe. Raises `OSError`.
    """
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def make_expendable(pid: int) -> None:
    """Have the kernel end this process before others where memory runs out."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text(KILLED_FIRST, encoding="ascii")


def _kill_group(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
