"""settings.py: all wrong values at once, safe defaults, and environments of children that carry no secret."""

from __future__ import annotations

import os
import re
from pathlib import Path

import gradio
import pytest

from errors import ConfigError
from settings import Settings, child_environment, installer_environment, prepare_environment
from tests.helpers.child import run


def test_defaults_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings.from_env({})
    assert (settings.host, settings.port, settings.quantize) == ("127.0.0.1", 7860, "auto")
    assert settings.home == tmp_path / "data" and settings.gate == "not-worse"
    assert settings.sign_in == "local" and settings.password == ""


LONG = "correct horse battery"
OAUTH = {"OAUTH_CLIENT_ID": "id", "OAUTH_CLIENT_SECRET": "x"}


@pytest.mark.parametrize(
    ("env", "how"),
    [
        ({"GRAFT_HOST": "localhost"}, "local"),
        ({"GRAFT_HOST": "0.0.0.0"}, "nobody"),
        ({"GRAFT_HOST": "0.0.0.0", **OAUTH}, "nobody"),
        ({"GRAFT_HOST": "192.168.1.5", "GRAFT_PASSWORD": LONG}, "password"),
        ({"GRAFT_PASSWORD": LONG}, "password"),
        ({"SPACE_ID": "someone/graft"}, "nobody"),
        ({"SPACE_ID": "someone/graft", "GRAFT_HOST": "127.0.0.1"}, "nobody"),
        ({"SPACE_ID": "someone/graft", "GRAFT_PASSWORD": LONG}, "nobody"),
        ({"SPACE_ID": "someone/graft", **OAUTH}, "huggingface"),
    ],
)
def test_r09_a_page_that_others_reach_has_an_owner_who_signs_in_or_none(env: dict[str, str], how: str) -> None:
    settings = Settings.from_env(env)
    assert settings.sign_in == how
    if how == "huggingface":
        assert settings.owners == ("someone",)
        assert Settings.from_env({**env, "GRAFT_OWNERS": "ada, bob"}).owners == ("ada", "bob")


def test_a_password_is_long_read_from_a_file_and_never_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(f"{LONG}\n")
    settings = Settings.from_env({"GRAFT_PASSWORD_FILE": str(tmp_path / "password")})
    assert settings.password == LONG and LONG not in repr(settings)
    wrong = [{"GRAFT_PASSWORD": "short"}, {"GRAFT_PASSWORD_FILE": str(tmp_path / "gone")},
             {"GRAFT_PASSWORD": LONG, "GRAFT_PASSWORD_FILE": str(tmp_path / "password")}]  # fmt: skip
    for env in wrong:
        with pytest.raises(ConfigError) as caught:
            Settings.from_env(env)
        assert len(caught.value.problems) == 1 and "short'" not in str(caught.value) and LONG not in str(caught.value)


def test_every_wrong_value_is_named() -> None:
    env = {"GRAFT_PORT": "70000", "GRAFT_QUANTIZE": "3bit", "HF_HUB_OFFLINE": "maybe", "GRAFT_ROWS": "0"}
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
    given = {"": 10**10, "0": 0, "2.5": 2_500_000_000, "100": 10**11}
    assert {value: Settings.from_env({"GRAFT_CACHE_GB": value}).cache_bytes for value in given} == given
    for wrong in ("x", "1e3", "-1", "nan", "1000000000"):
        with pytest.raises(ConfigError, match="GRAFT_CACHE_GB"):
            Settings.from_env({"GRAFT_CACHE_GB": wrong})


def test_r06_children_get_what_is_listed_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    canary = "https://ada:canary@rows.example"
    secrets = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "DB_PASSWORD"]
    secrets.append("GRAFT_PASSWORD")
    for key in (*secrets, "DATABASE_URL", "NETRC", "XDG_CONFIG_HOME", "LD_PRELOAD", "PYTHONSTARTUP"):
        monkeypatch.setenv(key, canary)
    monkeypatch.setenv("PIP_INDEX_URL", "file:///index")
    child, installer = child_environment(GRAFT_HOME="/there"), installer_environment()
    assert canary not in child.values() and not set(secrets) & set(installer)
    assert child["PIP_INDEX_URL"] == installer["PIP_INDEX_URL"] == "file:///index" and child["GRAFT_HOME"] == "/there"


@pytest.mark.parametrize(("token", "printed"), [("", "True False"), ("hf_" + "y" * 34, "False False")])
def test_r06_a_child_finds_no_token_and_sends_none_that_nobody_meant(
    token: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what the operator signed in with on this machine, nor one that it was given for another purpose."""
    (tmp_path / "token").write_text("hf_" + "x" * 34)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    code = "from huggingface_hub import get_token; from huggingface_hub.utils import build_hf_headers; "
    code += "print(get_token() is None, 'authorization' in build_hf_headers())"
    assert run("-c", code, **child_environment(**({"HF_TOKEN": token} if token else {}))).stdout.strip() == printed


def test_r48_only_switches_of_gradio_that_mean_something_here_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = [path.read_text("utf-8") for path in Path(gradio.__file__).parent.glob("*.py")]
    known = set(re.findall(r"\bGRADIO_[A-Z_]+\b", "\n".join(sources)))
    assert {"GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_MCP_SERVER", "GRADIO_VIBE_MODE"} <= known
    environ = dict.fromkeys(known, "1") | {"PATH": os.environ["PATH"], "GRAFT_HOME": str(tmp_path)}
    monkeypatch.setattr(os, "environ", environ)
    del environ["GRADIO_TEMP_DIR"]
    prepare_environment()
    assert {key.removeprefix("GRADIO_"): value for key, value in environ.items() if key.startswith("GRADIO_")} == {
        "ANALYTICS_ENABLED": "False",
        "RUN_HISTORY": "False",
        "SERVER_PORT": "1",
        "TEMP_DIR": str(tmp_path / "uploads"),
        "ANALYTICS_CACHE_FREQUENCY": "1000000000",
    }
