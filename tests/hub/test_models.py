"""hub/models.py: models of the Hub and its cache, against a small real server on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from errors import ModelError
from hub import models
from hub.client import Unreachable, silent
from hub.models import Hub, cached_snapshot
from tests.helpers.fake_hub import FakeHub, SilentPort, model_files, serving, silent_hub
from tests.helpers.waiting import until

REPO = "org/name"
EXTRA = [
    *("pytorch_model.bin", "evil.py", "onnx/config.json", "onnx/model.safetensors", "original/x.pth"),
    *("model.fp16.safetensors", "consolidated.00.safetensors", "README.md", "chat_template.jinja"),
]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files = model_files(tmp_path / "source") | dict.fromkeys(EXTRA, b"{}")
    repositories = {REPO: files, "org/pickled": {"config.json": b"{}", "a.bin": b""}}
    with serving(repositories, monkeypatch, tmp_path / "cache") as fake:
        yield fake


@pytest.fixture
def silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SilentPort]:
    with silent_hub(monkeypatch, tmp_path / "cache") as port:
        yield port


def test_a_fetch_takes_the_safe_files_of_one_commit(hub: FakeHub) -> None:
    seen: list[tuple[str, float | None]] = []
    path = Hub().fetch(REPO, None, lambda phase, fraction: seen.append((phase, fraction)))
    wanted = ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert sorted(file.name for file in path.rglob("*")) == wanted
    assert path.name == hub.branches["main"]
    fractions = [fraction or 0.0 for _, fraction in seen]
    assert fractions == sorted(fractions) and (fractions[0], fractions[-1]) == (0, 1)
    assert any(0 < fraction < 1 for fraction in fractions)
    assert all(f"/{path.name}/" in request for request in hub.requests if "/resolve/" in request)


@pytest.mark.parametrize("parts", [["vocab.txt"], ["config.json", "vocab.txt"]])
def test_r42_a_part_of_a_model_in_the_cache_is_no_model(hub: FakeHub, parts: list[str]) -> None:
    """Another program may have downloaded the tokenizer alone."""
    for name in parts:
        hf_hub_download(REPO, name)
    assert cached_snapshot(REPO, None) is None
    path = Hub().fetch(REPO, None, silent)
    assert cached_snapshot(REPO, None) == path


def test_a_refusal_of_the_hub_says_why_and_the_users_token_is_sent(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    assert Hub().fetch(REPO, "dev", silent).name == hub.branches["dev"]
    with pytest.raises(ModelError, match="no model org/none"):
        Hub().fetch("org/none", None, silent)
    with pytest.raises(ModelError, match="no revision v9"):
        Hub().fetch(REPO, "v9", silent)
    with pytest.raises(ModelError, match="not a model id"):
        Hub().fetch("org/a--b", None, silent)
    hub.gated.add(REPO)
    with pytest.raises(ModelError, match=r"gated.*HF_TOKEN"):
        Hub().fetch(REPO, None, silent)
    assert set(hub.tokens) == {"Bearer hf_canary"}


def test_r02_pickles_are_refused_before_anything_is_downloaded(hub: FakeHub) -> None:
    with pytest.raises(ModelError, match=r"a\.bin"):
        Hub().fetch("org/pickled", None, silent)
    assert not [request for request in hub.requests if "resolve" in request]


def test_a_model_that_does_not_fit_on_the_disk_is_not_fetched(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    class Sizes(bytes):
        def __len__(self) -> int:
            return 10**15

    hub.repositories = {REPO: {**hub.repositories[REPO], "model.safetensors": Sizes(b"x")}}
    with pytest.raises(ModelError, match="does not fit"):
        Hub().fetch(REPO, None, silent)
    assert not [request for request in hub.requests if "resolve" in request]


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_an_error_status_is_reported_after_one_request(hub: FakeHub, status: int) -> None:
    hub.status = status
    with pytest.raises(ModelError if status == 403 else Unreachable, match=str(status)):
        Hub().fetch(REPO, None, silent)
    assert len(hub.requests) == 1


@pytest.mark.parametrize("cut", [0, 1, 5000])
def test_r42_a_cut_connection_is_taken_up_again(hub: FakeHub, cut: int) -> None:
    hub.drop["model.safetensors"] = cut
    path = Hub().fetch(REPO, None, silent)
    assert (path / "model.safetensors").read_bytes() == hub.repositories[REPO]["model.safetensors"]
    assert hub.drop == {}


def test_an_error_of_the_callback_cancels_and_is_raised(hub: FakeHub) -> None:
    def cancel(phase: str, fraction: float | None) -> None:
        if fraction:
            raise ValueError("cancelled")

    with pytest.raises(ValueError, match="cancelled"):
        Hub().fetch(REPO, None, cancel)


def test_a_whole_snapshot_is_found_without_the_network_and_an_incomplete_one_is_not(hub: FakeHub) -> None:
    path = Hub().fetch(REPO, None, silent)
    hub.requests.clear()
    assert cached_snapshot(REPO, path.name) == path
    (path / "vocab.txt").unlink()
    assert cached_snapshot(REPO, path.name) is None and hub.requests == []
    Hub().fetch(REPO, None, silent)
    assert cached_snapshot(REPO, path.name) == path


def test_a_hub_that_never_answers_is_asked_once(silence: SilentPort, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()

    def ask() -> None:
        with pytest.raises(Unreachable):
            hub.fetch(REPO, None, silent)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert silence.connections == 1
    monkeypatch.setattr(models, "SILENCE_SECONDS", 0.0)
    ask()
    assert silence.connections == 1, "it is still remembered"
    hub = Hub()
    ask()
    ask()
    assert silence.connections == 3, "forgotten at once, so asked again"


def test_a_hub_that_answers_too_slowly_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def looking() -> bool:
        return any(thread.name == "hub-look-up" for thread in threading.enumerate())

    assert models.REACH_SECONDS <= 3
    with silent_hub(monkeypatch, tmp_path / "cache", trickle=True), pytest.raises(Unreachable):
        Hub().fetch(REPO, None, silent)
    assert looking(), "each byte of the answer arrives in time"
    until(lambda: not looking())


def test_a_closed_port_or_a_login_page_is_no_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.status = 200  # every address answers {}
    with pytest.raises(Unreachable, match="something else"):
        Hub().fetch(REPO, None, silent)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="did not answer"):
        Hub().fetch(REPO, None, silent)
