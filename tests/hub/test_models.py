"""The Hub side of finding a model, against a small real server on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.utils import close_session

from errors import ModelError
from hub import models
from hub.client import Unreachable, silent
from hub.models import Hub, cached_snapshot
from settings import REPOSITORY
from tests.helpers.fake_hub import FakeHub, SilentPort, model_files, point_to

REPO = "org/name"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files = model_files(tmp_path / "source")
    extra = ["pytorch_model.bin", "evil.py", "onnx/config.json", "onnx/model.safetensors", "original/x.pth",
             "model.fp16.safetensors", "consolidated.00.safetensors", "README.md", "chat_template.jinja"]  # fmt: skip
    fake = FakeHub(
        {REPO: {**files, **{name: b"{}" for name in extra}}, "org/pickled": {"config.json": b"{}", "a.bin": b""}}
    )
    with fake.running() as url:
        point_to(monkeypatch, url, tmp_path / "cache")
        yield fake
        close_session()


def test_fetch_takes_safe_files_of_one_commit(hub: FakeHub) -> None:
    seen: list[tuple[str, float | None]] = []
    path, sha = Hub().fetch(REPO, None, lambda phase, fraction: seen.append((phase, fraction)))
    wanted = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert sorted(file.name for file in path.rglob("*")) == wanted
    assert sha == path.name == hub.branches["main"]
    fractions = [fraction or 0.0 for _, fraction in seen]
    assert fractions == sorted(fractions) and (fractions[0], fractions[-1]) == (0, 1)
    assert any(0 < fraction < 1 for fraction in fractions)
    assert all(f"/{sha}/" in request for request in hub.requests if "/resolve/" in request)


def test_the_cache_answers_without_the_network(hub: FakeHub) -> None:
    assert cached_snapshot(REPO, None) is None
    path, sha = Hub().fetch(REPO, None, silent)
    hub.requests.clear()
    assert cached_snapshot(REPO, sha) == path
    assert hub.requests == []


@pytest.mark.parametrize("parts", [["vocab.txt"], ["config.json", "vocab.txt"]])
def test_r42_a_part_of_a_model_in_the_cache_is_no_model(hub: FakeHub, parts: list[str]) -> None:
    """As another program leaves it that wanted the tokenizer alone."""
    for name in parts:
        hf_hub_download(REPO, name)
    assert cached_snapshot(REPO, None) is None
    path, _ = Hub().fetch(REPO, None, silent)
    assert cached_snapshot(REPO, None) == path


def test_a_branch_is_another_commit(hub: FakeHub) -> None:
    assert Hub().fetch(REPO, "dev", silent)[1] == hub.branches["dev"]


def test_what_the_hub_refuses(hub: FakeHub) -> None:
    with pytest.raises(ModelError, match="no model org/none"):
        Hub().fetch("org/none", None, silent)
    with pytest.raises(ModelError, match="no revision v9"):
        Hub().fetch(REPO, "v9", silent)
    with pytest.raises(ModelError, match="not a model id"):
        Hub().fetch("org/a--b", None, silent)
    hub.gated.add(REPO)
    with pytest.raises(ModelError, match="gated") as caught:
        Hub().fetch(REPO, None, silent)
    assert "HF_TOKEN" in caught.value.next


def test_r02_pickles_are_refused_before_anything_is_downloaded(hub: FakeHub) -> None:
    with pytest.raises(ModelError, match=r"a\.bin"):
        Hub().fetch("org/pickled", None, silent)
    assert not [request for request in hub.requests if "resolve" in request]


def test_no_room(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sizes(bytes):
        def __len__(self) -> int:
            return 10**15

    hub.repositories = {REPO: {**hub.repositories[REPO], "model.safetensors": Sizes(b"x")}}
    with pytest.raises(ModelError, match="does not fit"):
        Hub().fetch(REPO, None, silent)
    assert not [request for request in hub.requests if "resolve" in request]


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_error_statuses(hub: FakeHub, status: int) -> None:
    hub.status = status
    with pytest.raises(ModelError if status == 403 else Unreachable, match=str(status)):
        Hub().fetch(REPO, None, silent)
    assert len(hub.requests) == 1


@pytest.mark.parametrize("cut", [0, 1, 5000])
def test_r42_a_cut_connection_is_taken_up_again(hub: FakeHub, cut: int) -> None:
    hub.drop["model.safetensors"] = cut
    path, _ = Hub().fetch(REPO, None, silent)
    assert (path / "model.safetensors").read_bytes() == hub.repositories[REPO]["model.safetensors"]
    assert hub.drop == {}


def test_a_failure_of_the_callback_is_not_the_hubs(hub: FakeHub) -> None:
    def cancel(phase: str, fraction: float | None) -> None:
        if fraction:
            raise ValueError("cancelled")

    with pytest.raises(ValueError, match="cancelled"):
        Hub().fetch(REPO, None, cancel)


def test_an_incomplete_snapshot_is_not_taken(hub: FakeHub) -> None:
    path, sha = Hub().fetch(REPO, None, silent)
    (path / "vocab.txt").unlink()
    assert cached_snapshot(REPO, sha) is None
    Hub().fetch(REPO, None, silent)
    assert cached_snapshot(REPO, sha) == path


def test_a_process_killed_in_a_download_leaves_nothing_whole(hub: FakeHub, tmp_path: Path) -> None:
    hub.stall["model.safetensors"] = 1000
    code = f"from hub.models import Hub; Hub().fetch({REPO!r}, None, lambda *_: None)"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "HF_ENDPOINT": constants.ENDPOINT,
                   "HF_HOME": str(tmp_path), "HF_HUB_CACHE": constants.HF_HUB_CACHE, "HF_HUB_OFFLINE": "0"}  # fmt: skip
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as process:
        assert hub.stalled.wait(20)
        process.send_signal(signal.SIGKILL)
    hub.stall.clear()
    assert cached_snapshot(REPO, hub.branches["main"]) is None
    path, _ = Hub().fetch(REPO, None, silent)
    assert (path / "model.safetensors").read_bytes() == hub.repositories[REPO]["model.safetensors"]


@pytest.fixture
def silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentPort]:
    port = SilentPort()
    point_to(monkeypatch, port.url, tmp_path / "cache")
    monkeypatch.setattr(models, "REACH_SECONDS", 0.5)
    yield port
    port.close()
    close_session()


def test_a_hub_that_never_answers_is_asked_once(silence: SilentPort, monkeypatch: pytest.MonkeyPatch) -> None:
    hub, outcomes = Hub(), []

    def ask() -> None:
        with pytest.raises(Unreachable):
            hub.fetch(REPO, None, silent)
        outcomes.append(time.monotonic())

    started = time.monotonic()
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 4 and max(outcomes) - started < 1.5
    assert silence.connections == 1
    monkeypatch.setattr(models, "FORGET_SECONDS", 0.0)
    ask()
    assert silence.connections == 1  # still remembered
    hub = Hub()
    ask()
    ask()
    assert silence.connections == 3  # forgotten at once, so asked again


def test_a_look_up_that_is_given_up_ends(silence: SilentPort) -> None:
    with pytest.raises(Unreachable):
        Hub().fetch(REPO, None, silent)
    until = time.monotonic() + 3
    while any(thread.name == "hub-look-up" for thread in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_hub_that_answers_too_slowly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = SilentPort(trickle=True)
    point_to(monkeypatch, port.url, tmp_path / "cache")
    monkeypatch.setattr(models, "REACH_SECONDS", 0.5)
    started = time.monotonic()
    with pytest.raises(Unreachable):
        Hub().fetch(REPO, None, silent)
    assert time.monotonic() - started < 2
    port.close()
    close_session()


def test_three_seconds_is_what_it_costs() -> None:
    assert models.REACH_SECONDS <= 3


def test_a_closed_port_and_a_page_that_is_no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    point_to(monkeypatch, f"http://127.0.0.1:{port}", tmp_path)
    with pytest.raises(Unreachable):
        Hub().fetch(REPO, None, silent)
    close_session()


def test_a_login_page_in_place_of_the_hub(hub: FakeHub) -> None:
    hub.status = 200  # every address answers {}
    with pytest.raises(Unreachable, match="something else"):
        Hub().fetch(REPO, None, silent)
