"""settings.py: all wrong values at once, safe defaults, and environments of children that carry no secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from errors import ConfigError
from settings import Settings, child_environment, installer_environment, prepare_environment


def test_defaults_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({})
    assert (settings.host, settings.port, settings.quantize) == ("127.0.0.1", 7860, "auto")
    assert settings.home == tmp_path / "data" and settings.gate == "not-worse"
    assert settings.may_train


@pytest.mark.parametrize(
    ("env", "may"),
    [
        ({"GRAFT_HOST": "0.0.0.0"}, False),
        ({"SPACE_ID": "someone/graft"}, False),
        ({"SPACE_ID": "someone/graft", "GRAFT_HOST": "127.0.0.1"}, False),
        ({"SPACE_ID": "someone/graft", "GRAFT_REMOTE_TRAINING": "1"}, True),
        ({"GRAFT_HOST": "192.168.1.5", "GRAFT_REMOTE_TRAINING": "yes"}, True),
        ({"GRAFT_HOST": "localhost"}, True),
    ],
)
def test_strangers_may_train_only_where_the_operator_said_so(env: dict[str, str], may: bool) -> None:
    assert Settings.from_env(env).may_train is may


def test_every_wrong_value_is_named() -> None:
    env = {"GRAFT_PORT": "70000", "GRAFT_QUANTIZE": "3bit", "HF_HUB_OFFLINE": "maybe", "GRAFT_REMOTE_TRAINING": "2"}
    env |= {"GRAFT_CACHE_GB": "-1", "GRAFT_GATE": "sometimes"}
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(env)
    assert len(caught.value.problems) == 6
    for key, value in env.items():
        assert any(key in problem and value in problem for problem in caught.value.problems)


def test_bases_of_tabs_are_ids_or_folders_wherever_the_process_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    env = {"GRAFT_MODEL_CLASSIFICATION": "mine", "GRAFT_MODEL_SUMMARIZATION": "google/flan-t5-small"}
    settings = Settings.from_env(env)
    assert settings.models == {"classification": str(tmp_path / "mine"), "summarization": "google/flan-t5-small"}
    for key, value in env.items():
        monkeypatch.setenv(key, value)
    assert child_environment()["GRAFT_MODEL_CLASSIFICATION"] == str(tmp_path / "mine")
    assert child_environment()["GRAFT_MODEL_SUMMARIZATION"] == "google/flan-t5-small"


def test_gigabytes_of_cache() -> None:
    told = {value: Settings.from_env({"GRAFT_CACHE_GB": value}).cache_bytes for value in ("", "0", "2.5", "100")}
    assert told == {"": 10**10, "0": 0, "2.5": 2_500_000_000, "100": 10**11}
    for wrong in ("x", "1e3", "-1", "nan", "1000000000"):
        with pytest.raises(ConfigError, match="GRAFT_CACHE_GB"):
            Settings.from_env({"GRAFT_CACHE_GB": wrong})


def test_r06_children_get_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "hf_" + "x" * 34
    for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(key, canary)
    monkeypatch.setenv("PIP_INDEX_URL", "file:///index")
    for environment in (child_environment(), installer_environment()):
        assert canary not in environment.values()
        assert environment["PIP_INDEX_URL"] == "file:///index"
    assert child_environment(GRAFT_HOME="/there")["GRAFT_HOME"] == "/there"


def test_waiting_threads_soon_sleep_in_this_process_and_in_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spinning ones make a run beside the page, and the page, several times slower."""
    assert os.environ["GOMP_SPINCOUNT"] == child_environment()["GOMP_SPINCOUNT"] == "1000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "5")
    prepare_environment()
    assert os.environ["GOMP_SPINCOUNT"] == child_environment()["GOMP_SPINCOUNT"] == "5"


def test_r48_what_would_open_the_page_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_MCP_SERVER", "GRADIO_VIBE_MODE"):
        monkeypatch.setenv(key, "1")
    prepare_environment()
    assert not {"GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_MCP_SERVER", "GRADIO_VIBE_MODE"} & set(
        installer_environment()
    )
