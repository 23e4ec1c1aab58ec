"""Small real stand-ins for what lies outside: a Hub on loopback, a port that never answers, a wheel, a model folder."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from safetensors.numpy import save_file

CONFIG = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 4}


class FakeHub:
    """The routes of the Hugging Face Hub that a download uses, over `repositories`: id -> name -> bytes.

    The id of a data set begins with `datasets/`. `branches` maps branch names to shas; `gated` names ids whose files
    are refused; `drop` maps a file's name to the byte at which the connection is cut, once; `stall` to the byte after
    which nothing more comes; `status` answers all.
    """

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repositories = repositories
        self.branches = {"main": "a" * 40, "dev": "b" * 40}
        self.gated: set[str] = set()
        self.drop: dict[str, int] = {}
        self.stall: dict[str, int] = {}
        self.stalled = threading.Event()
        self.released = threading.Event()
        self.status = 0
        self.requests: list[str] = []
        self.tokens: list[str] = []

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve on loopback; gives the address for HF_ENDPOINT."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            self.released.set()
            server.shutdown()
            server.server_close()
            thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        if "agent-harnesses" in path:  # asked by huggingface_hub about itself
            return self.send(request, 404, b"{}")
        self.requests.append(f"{request.command} {path}")
        self.tokens.append(request.headers.get("Authorization", ""))
        if self.status:
            return self.send(request, self.status, b"{}")
        parts = path.removeprefix("/api/models").strip("/").split("/")
        if parts[0] == "api":
            del parts[0]
        size = 3 if parts[0] == "datasets" else 2
        repo, rest = "/".join(parts[:size]), parts[size:]
        if path.startswith("/api/"):
            return self.describe(request, repo, rest)
        if rest[:1] == ["resolve"]:
            return self.file(request, repo, rest[1], unquote("/".join(rest[2:])))
        return self.send(request, 404, b"{}")

    def describe(self, request: BaseHTTPRequestHandler, repo: str, rest: list[str]) -> None:
        files = self.repositories.get(repo)
        if files is None:
            return self.send(request, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
        sha = self.sha(rest[1] if len(rest) > 1 else "main")
        if sha is None:
            return self.send(request, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        answer: Any = {
            "id": repo.removeprefix("datasets/"),
            "sha": sha,
            "siblings": [{"rfilename": n, "size": len(b)} for n, b in files.items()],
        }
        if rest and rest[0] == "tree":
            answer = [{"type": "file", "path": n, "size": len(b), "oid": etag(b)} for n, b in files.items()]
        return self.send(request, 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def file(self, request: BaseHTTPRequestHandler, repo: str, revision: str, name: str) -> None:
        sha, data = self.sha(revision), self.repositories.get(repo, {}).get(name)
        if repo in self.gated:
            return self.send(request, 403, b"{}", {"X-Error-Code": "GatedRepo"})
        if sha is None or data is None:
            return self.send(request, 404, b"{}", {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{etag(data)}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        start = int((request.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.send(request, 206 if start else 200, data[start:], headers, name)

    def send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: Any = (), name: str = ""
    ) -> None:
        request.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **dict(headers)}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        cut = self.drop.pop(name, None)
        if cut is not None:
            request.wfile.write(body[:cut])
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
        elif name in self.stall:
            request.wfile.write(body[: self.stall[name]])
            request.wfile.flush()
            self.stalled.set()
            self.released.wait(30)
        else:
            request.wfile.write(body)

    def sha(self, revision: str) -> str | None:
        return revision if revision in self.branches.values() else self.branches.get(revision)


class SilentPort:
    """A port that accepts connections and never answers, or answers for ever; `connections` counts them."""

    def __init__(self, trickle: bool = False) -> None:
        self._trickle = trickle
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                self._open.append(connection)
                if self._trickle:
                    threading.Thread(target=self._answer_slowly, args=(connection,), daemon=True).start()

    def _answer_slowly(self, connection: socket.socket) -> None:
        """Send a byte of a header every 50 ms: each arrives in time, the answer never does."""
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
            for _ in range(100):
                connection.sendall(b"x")
                time.sleep(0.05)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for connection in self._open:
            connection.close()


@contextmanager
def serving(
    repositories: Mapping[str, Mapping[str, bytes]], monkeypatch: pytest.MonkeyPatch, cache: Path
) -> Iterator[FakeHub]:
    """Run a `FakeHub` that this process's huggingface_hub uses, with a cache of its own."""
    fake = FakeHub(repositories)
    with fake.running() as url:
        point_to(monkeypatch, url, cache)
        yield fake
        close_session()


@contextmanager
def silent_hub(monkeypatch: pytest.MonkeyPatch, cache: Path, trickle: bool = False) -> Iterator[SilentPort]:
    """Put a `SilentPort` in place of the Hub; looking up a model gives up after 0.3 s."""
    port = SilentPort(trickle)
    point_to(monkeypatch, port.url, cache)
    monkeypatch.setattr("hub.models.REACH_SECONDS", 0.3)
    yield port
    port.close()
    close_session()


def point_to(monkeypatch: pytest.MonkeyPatch, url: str, cache: Path) -> None:
    """Make this process's huggingface_hub use another endpoint and another cache."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()  # noqa: S324 - what git calls a file, no security


def model_files(folder: Path, seed: int = 0) -> dict[str, bytes]:
    """Write a very small model into `folder`; gives its files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\nhello\n")
    values = np.random.default_rng(seed).normal(size=(64, 32)).astype("f4")
    save_file({"encoder.weight": values, "encoder.bias": values[0].copy()}, folder / "model.safetensors")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def wheel(folder: Path, name: str, members: Mapping[str, bytes], version: str = "1.0") -> tuple[Path, str]:
    """Write a wheel that pip accepts; gives its path and sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for member, data in members.items():
            file.writestr(member, data)
        file.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return path, hashlib.sha256(path.read_bytes()).hexdigest()
