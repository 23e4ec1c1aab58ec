"""The process: starts in seconds without torch on its main path, says where it is, or in one sentence why it cannot."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from settings import RELEASE, REPOSITORY
from tests.helpers.child import KEPT, run

pytestmark = pytest.mark.slow

TOKEN = "hf_" + "canary" * 6


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with a home that is not there yet, and a folder without plugins."""
    (tmp_path / "plugins").mkdir()
    return {"GRAFT_HOME": str(tmp_path / "home"), "GRAFT_PLUGINS": str(tmp_path / "plugins")}


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield found


@pytest.mark.parametrize(
    ("wrong", "code", "sentences"),
    [
        ({"GRAFT_PORT": "many", "GRAFT_QUANTIZE": "3bit"}, 2, ["GRAFT_PORT='many'", "GRAFT_QUANTIZE='3bit'"]),
        ({"GRAFT_PORT": "{port}"}, 1, ["Port {port} on 127.0.0.1 is taken."]),
        ({"GRAFT_HOME": "{file}/home"}, 1, ["cannot be written"]),
    ],
)
def test_a_page_that_cannot_start_says_so_in_one_line(
    wrong: dict[str, str], code: int, sentences: list[str], env: dict[str, str], listening: socket.socket
) -> None:
    known = {"port": listening.getsockname()[1], "file": __file__}
    done = run("app.py", **env | {key: value.format(**known) for key, value in wrong.items()})
    assert done.returncode == code and len(done.stderr.strip().splitlines()) == 1
    assert [text for text in sentences if text.format(**known) not in done.stderr] == []


def test_r06_a_token_in_an_error_of_a_plugin_is_left_out_of_the_log(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "plugins" / "bad.py").write_text(f"raise ValueError('GET /api?token={TOKEN}')")
    done = run("-c", "import app; print(app.context.tabs[0].error is not None)", **env)
    assert done.stdout == "True\n" and "Traceback" in done.stderr and "token=hf_..." in done.stderr
    assert TOKEN not in done.stderr


WATCHING = """
import socket
connect = socket.socket.connect
def watched(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1", "0.0.0.0"):
        with open({log!r}, "a") as file:
            file.write(repr(address) + chr(10))
    return connect(self, address)
socket.socket.connect = watched
"""


@pytest.mark.parametrize("share", ["", "True"])
def test_r40_r44_the_page_is_up_and_private_and_asks_no_other_machine(
    share: str, tmp_path: Path, env: dict[str, str], listening: socket.socket
) -> None:
    port = listening.getsockname()[1]
    listening.close()
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCHING.format(log=str(tmp_path / "contacts")))
    env |= KEPT | {"GRAFT_PORT": str(port), "GRADIO_ALLOWED_PATHS": "/", "GRADIO_SHARE": share}
    env |= {"PYTHONPATH": str(tmp_path / "watch"), "GRADIO_ANALYTICS_ENABLED": "True"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Graft is ready at http://127.0.0.1:{port}\n"
        for path in ("/", "/config"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == 200 and (path == "/" or f"Graft {RELEASE}" in answer.read().decode())
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/gradio_api/file=/etc/passwd")
        with closing(refused.value):
            assert refused.value.code == 403
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert not (tmp_path / "contacts").exists(), (tmp_path / "contacts").read_text()
