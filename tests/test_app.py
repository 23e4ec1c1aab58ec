"""The process: starts in seconds without torch on its main path, says where it is, or in one sentence why it cannot."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from settings import RELEASE, REPOSITORY


def environment(tmp_path: Path, **values: str) -> dict[str, str]:
    (tmp_path / "plugins").mkdir(exist_ok=True)
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "VIRTUAL_ENV") if key in os.environ}
    plugins = str(tmp_path / "plugins")
    return kept | {"GRAFT_HOME": str(tmp_path / "home"), "GRAFT_PLUGINS": plugins, "HF_HUB_OFFLINE": "1"} | values


def run(env: dict[str, str], *code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *(code or ("app.py",))]
    return subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60)


def test_invalid_settings_are_one_sentence_and_code_2(tmp_path) -> None:
    done = run(environment(tmp_path, GRAFT_PORT="many", GRAFT_QUANTIZE="3bit"))
    assert done.returncode == 2
    assert "GRAFT_PORT='many'" in done.stderr and "GRAFT_QUANTIZE='3bit'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_taken_port_is_one_sentence_and_code_1(tmp_path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = run(environment(tmp_path, GRAFT_PORT=str(port)))
    assert done.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken." in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_home_that_cannot_be_written_is_one_sentence_and_code_1(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    done = run(environment(tmp_path, GRAFT_HOME=str(tmp_path / "file" / "home")))
    assert done.returncode == 1
    assert "cannot be written" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_importing_the_app_imports_no_torch(tmp_path) -> None:
    env = environment(tmp_path)
    del env["GRAFT_PLUGINS"]
    code = "import sys, app; print(sorted({'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)), app.demo)"
    done = run(env, "-c", code)
    assert done.stdout.startswith("[]"), done.stderr


def test_r06_a_token_in_what_a_plugin_raises_is_left_out_of_the_log(tmp_path) -> None:
    token = "hf_" + "canary" * 6
    env = environment(tmp_path)
    (tmp_path / "plugins" / "bad.py").write_text(f"raise ValueError('GET /api?token={token}')")
    done = run(env, "-c", "import app; print(app.context.tabs[0].error is not None)")
    assert done.stdout == "True\n" and "Traceback" in done.stderr and "token=hf_..." in done.stderr
    assert token not in done.stderr


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
def test_r40_r44_it_is_up_and_private_and_asks_no_other_machine(tmp_path, share) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCHING.format(log=str(tmp_path / "contacts")))
    env = environment(tmp_path, GRAFT_PORT=str(port), GRADIO_ALLOWED_PATHS="/", GRADIO_SHARE=share)
    env |= {"PYTHONPATH": str(tmp_path / "watch"), "HF_HUB_OFFLINE": "0", "GRADIO_ANALYTICS_ENABLED": "True"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Graft is ready at http://127.0.0.1:{port}\n"
        for path in ("/", "/config"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as answer:
                assert answer.status == 200 and (path == "/" or f"Graft {RELEASE}" in answer.read().decode())
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/gradio_api/file=/etc/passwd")
        assert refused.value.code == 403
        refused.value.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        process.stdout.close()
    assert not (tmp_path / "contacts").exists(), (tmp_path / "contacts").read_text()
