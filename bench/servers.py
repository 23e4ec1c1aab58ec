"""Start the app, stock Gradio pages and other peers as processes, each from the start to the end of a `with` block."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any, BinaryIO
from urllib.request import urlopen

from gradio_client import Client

from bench.measure import peer_environment
from settings import REPOSITORY, child_environment

HOST = "127.0.0.1"
PATIENCE_S = 300.0
POLL_S = 0.01


@dataclass(frozen=True)
class PageServer:
    """A page that can be loaded."""

    port: int
    pid: int
    started: float
    """Time of `time.perf_counter` when its process was started."""
    usable: float
    """Seconds from then until the page could be loaded."""

    def client(self) -> Client:
        """Open a connection of its own, as one person has.

        It verifies no certificate, since there is none: otherwise it reads the authorities' anew for each request,
        40 ms, and 32 clients in one process measure themselves and not the page.
        """
        return Client(f"http://{HOST}:{self.port}", verbose=False, analytics_enabled=False, ssl_verify=False)


@contextmanager
def serve_app(home: Path, bases: Mapping[str, str], **variables: str) -> Iterator[PageServer]:
    """Serve Graft on a home with these tabs and no others; a tab whose base is "" has its own.

    `variables` are further variables of its environment.
    """
    plugins = home.parent / f"plugins-{'-'.join(bases)}"
    plugins.mkdir(exist_ok=True)
    for tab in bases:
        shutil.copyfile(REPOSITORY / "plugins" / f"{tab}.py", plugins / f"{tab}.py")
    chosen = {f"GRAFT_MODEL_{tab.upper()}": base for tab, base in bases.items() if base}
    variables = {"GRAFT_HOME": str(home), "GRAFT_PLUGINS": str(plugins), "GRAFT_HOST": HOST, **chosen, **variables}
    environment = child_environment(HF_HUB_OFFLINE="1", **variables)
    with _serve([sys.executable, "app.py"], environment, "GRAFT_PORT") as server:
        yield server


@contextmanager
def serve_stock(page: str, job: Mapping[str, Any]) -> Iterator[PageServer]:
    """Serve a page of `bench/peers/stock_page.py`."""
    command = [sys.executable, "-m", "bench.peers.stock_page", page, json.dumps(job)]
    environment = peer_environment(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
    with _serve(command, environment, "GRADIO_SERVER_PORT") as server:
        yield server


@contextmanager
def _serve(command: Sequence[str], environment: dict[str, str], port_variable: str) -> Iterator[PageServer]:
    """Run the command on a free port, given in that variable, and yield once the page can be loaded."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    environment = {**environment, port_variable: str(port)}
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = Popen(list(command), cwd=REPOSITORY, env=environment, stdin=DEVNULL, stdout=log, stderr=log)
        try:
            _wait(process, port, log)
            yield PageServer(port, process.pid, started, time.perf_counter() - started)
        finally:
            process.terminate()
            process.wait()


def _wait(process: Popen[bytes], port: int, log: BinaryIO) -> None:
    """Return when the page can be loaded; raises `RuntimeError` with the end of its log where it cannot."""
    deadline = time.perf_counter() + PATIENCE_S
    while process.poll() is None and time.perf_counter() < deadline:
        with suppress(OSError), urlopen(f"http://{HOST}:{port}/", timeout=PATIENCE_S):
            return
        time.sleep(POLL_S)
    raise RuntimeError(f"The page did not come up:\n{_end_of(log)}")


def _end_of(log: BinaryIO) -> str:
    log.seek(0)
    return log.read().decode("utf-8", "replace")[-3000:]


@contextmanager
def start_peer(kind: str, **job: Any) -> Iterator[Callable[..., Any]]:  # noqa: ANN401
    """Run a worker of `bench/peers/stock_answers.py`; yields a function that asks it and returns its answer.

    A peer has its own memory, its own allocator and the environment that its users have; libraries are imported and
    weights loaded once for all rounds.
    """
    command, environment = [sys.executable, "-m", "bench.peers.stock_answers", kind], peer_environment()
    with (
        tempfile.TemporaryFile() as log,
        Popen(command, cwd=REPOSITORY, env=environment, stdin=PIPE, stdout=PIPE, stderr=log, text=True) as peer,
    ):
        assert peer.stdin and peer.stdout
        questions, answers = peer.stdin, peer.stdout

        def ask(**question: Any) -> Any:  # noqa: ANN401 - any JSON value
            with suppress(BrokenPipeError):  # it has ended, which reading its answer reports
                questions.write(json.dumps(question) + "\n")
                questions.flush()
            line = answers.readline()
            if not line:
                peer.wait()  # its log is complete then
                raise RuntimeError(f"A peer has ended:\n{_end_of(log)}")
            return json.loads(line)

        try:
            ask(**job)
            yield ask
        finally:
            peer.terminate()
