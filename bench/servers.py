"""Pages in processes of their own: the app, and what people build with Gradio and a pipeline; asked over HTTP.

Each server runs from the start of the process to the end of the block, on a free port of this machine.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from gradio_client import Client

from bench.versions import Site
from bench.worker import peer_environment
from settings import REPOSITORY, child_environment

HOST = "127.0.0.1"
PATIENCE_S = 300.0
POLL_S = 0.01
TABS = ("classification", "summarization", "generation")


@dataclass(frozen=True)
class Server:
    """A page that can be loaded."""

    port: int
    pid: int
    started: float
    """When its process began, in seconds of `time.perf_counter`."""
    usable: float
    """When the page could be loaded, in seconds after that."""

    def client(self) -> Client:
        """A person's own connection.

        It verifies no certificate, since there is none: otherwise it reads the authorities' anew for each request,
        40 ms, and 32 people in one process measure themselves and not the page.
        """
        return Client(f"http://{HOST}:{self.port}", verbose=False, analytics_enabled=False, ssl_verify=False)


@contextmanager
def serve_app(site: Site, tabs: Sequence[str], bases: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Graft on the home of `site`, with these tabs and no others, on other `bases` than their own where given."""
    plugins = site.settings.home.parent / f"plugins-{'-'.join(tabs)}"
    plugins.mkdir(exist_ok=True)
    for tab in tabs:
        shutil.copyfile(REPOSITORY / "plugins" / f"{tab}.py", plugins / f"{tab}.py")
    chosen = {f"GRAFT_MODEL_{tab.upper()}": base for tab, base in (bases or {}).items()}
    environment = child_environment(
        GRAFT_HOME=str(site.settings.home), GRAFT_PLUGINS=str(plugins), GRAFT_HOST=HOST, HF_HUB_OFFLINE="1", **chosen
    )
    with serving([sys.executable, "app.py"], environment, "GRAFT_PORT") as server:
        yield server


@contextmanager
def serve_stock(page: str, job: Mapping[str, Any]) -> Iterator[Server]:
    """A page of bench/peers/stock_page.py."""
    command = [sys.executable, "-m", "bench.peers.stock_page", page, json.dumps(job)]
    environment = peer_environment(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_OFFLINE="1")
    with serving(command, environment, "GRADIO_SERVER_PORT") as server:
        yield server


@contextmanager
def serving(command: Sequence[str], environment: dict[str, str], port_variable: str) -> Iterator[Server]:
    """The page that `command` serves on the port that the variable names, once it can be loaded."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            list(command), cwd=REPOSITORY, env={**environment, port_variable: str(port)}, stdin=subprocess.DEVNULL,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            _wait(process, port, log)
            yield Server(port, process.pid, started, time.perf_counter() - started)
        finally:
            process.terminate()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: BinaryIO) -> None:
    """Return when the page can be loaded; raises `RuntimeError` with its last words where it ended."""
    deadline = time.perf_counter() + PATIENCE_S
    while process.poll() is None and time.perf_counter() < deadline:
        if _loads(port):
            return
        time.sleep(POLL_S)
    log.seek(0)
    raise RuntimeError(f"The page did not come up:\n{log.read().decode('utf-8', 'replace')[-3000:]}")


def _loads(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()
