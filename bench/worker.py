"""A peer in a process of its own that answers for as long as a benchmark asks: one line of JSON for each it is sent.

So a peer has its own memory, its own allocator and the environment that its users have, and its libraries are imported
and its weights loaded once for all rounds. `Worker` is the asking side, `serve` the whole of the other.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from process_setup import ENVIRONMENT
from settings import REPOSITORY, child_environment

Question = dict[str, Any]


class Worker:
    """Runs `python -m MODULE` from its making until the block ends."""

    def __init__(self, module: str, job: Mapping[str, Any]) -> None:
        """`job` is what the module prepares for; returns at once, the first question waits for it."""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._child = subprocess.Popen(
            [sys.executable, "-m", module], cwd=REPOSITORY, env=peer_environment(), stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip
        self._send(job)

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def ask(self, **question: Any) -> Any:  # noqa: ANN401 - what the module answers
        """Its answer; raises `RuntimeError` with its last words where it has ended."""
        self._send(question)
        assert self._child.stdout
        line = self._child.stdout.readline()
        if not line:
            self._child.wait()  # until it has said why
            self._errors.seek(0)
            raise RuntimeError(f"A peer has ended:\n{self._errors.read().decode('utf-8', 'replace')[-3000:]}")
        return json.loads(line)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._child.terminate()
        self._child.communicate()
        self._errors.close()

    def _send(self, what: Mapping[str, Any]) -> None:
        assert self._child.stdin
        try:
            self._child.stdin.write(json.dumps(what) + "\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            return  # it has ended; whoever reads its answer says so


def peer_environment(**extra: str) -> dict[str, str]:
    """The environment of a process of ours without what makes ours faster beside others."""
    return {key: value for key, value in child_environment().items() if key not in ENVIRONMENT} | extra


def serve(prepare: Callable[[Question], Callable[[Question], Any]]) -> None:
    """Prepare for the job, which comes first, and answer each question that follows it."""
    # Libraries print what they like; the answers keep the pipe to themselves.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        answer = prepare(json.loads(sys.stdin.readline()))
        for line in sys.stdin:
            answers.write(json.dumps(answer(json.loads(line))) + "\n")
            answers.flush()
