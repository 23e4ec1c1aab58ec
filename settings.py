"""Every setting of a Graft process, read once from the environment. The only reader of `os.environ`.

`Settings.from_env()` reports all invalid values at once, each with its key, its value and what was expected.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent
QUANTIZATIONS = ("auto", "none", "8bit", "4bit")
MODEL_PREFIX = "GRAFT_MODEL_"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off", "")


@dataclass(frozen=True)
class Settings:
    """Where things lie, where the page listens, and which base each tab uses."""

    home: Path = Path("data")
    """`GRAFT_HOME`: adapters, runs and converted models; `/data` on a Space that has it, else `./data`."""
    shipped: Path = REPOSITORY / "adapters"
    """Versions that come with the repository; read only."""
    plugins: Path = REPOSITORY / "plugins"
    """`GRAFT_PLUGINS`: the folder whose files become tabs. Plugins are trusted code."""
    host: str = "127.0.0.1"
    """`GRAFT_HOST`: the address to listen on."""
    port: int = 7860
    """`GRAFT_PORT`: the port to listen on."""
    quantize: str = "auto"
    """`GRAFT_QUANTIZE`: how resident bases are stored: auto (4bit on a GPU, none on a CPU), none, 8bit, 4bit."""
    offline: bool = False
    """`HF_HUB_OFFLINE`: never ask the Hugging Face Hub."""
    space: bool = False
    """True on a Hugging Face Space (`SPACE_ID` is set)."""
    remote_training: bool = False
    """`GRAFT_REMOTE_TRAINING`: let people who reach this app from elsewhere train and promote."""
    models: Mapping[str, str] = field(default_factory=dict)
    """`GRAFT_MODEL_<TAB>`: a Hub id or folder that replaces that tab's base."""

    @property
    def may_train(self) -> bool:
        """Whether this page may train and promote: always on loopback, elsewhere only when the operator said so."""
        return self.remote_training or (self.host in LOOPBACK and not self.space)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment; raises `ConfigError` naming every invalid value."""
        env = os.environ if environ is None else environ
        problems: list[str] = []
        space = bool(env.get("SPACE_ID"))
        settings = cls(
            home=Path(env.get("GRAFT_HOME") or _default_home(space)).expanduser().absolute(),
            plugins=Path(env.get("GRAFT_PLUGINS") or REPOSITORY / "plugins").expanduser().absolute(),
            host=env.get("GRAFT_HOST") or ("0.0.0.0" if space else "127.0.0.1"),  # noqa: S104 - a Space's own proxy
            port=_port(env, problems),
            quantize=_choice(env, "GRAFT_QUANTIZE", QUANTIZATIONS, problems),
            offline=_flag(env, "HF_HUB_OFFLINE", problems),
            space=space,
            remote_training=_flag(env, "GRAFT_REMOTE_TRAINING", problems),
            models={k[len(MODEL_PREFIX) :].lower(): v for k, v in env.items() if k.startswith(MODEL_PREFIX) and v},
        )
        if problems:
            raise ConfigError("The environment", problems, "Correct these variables and start again.")
        return settings


PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
    "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE", "XDG_CACHE_HOME",
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
"""What a child process needs of its parent's environment, and no more: above all no token."""
PASSED_ON_PREFIXES = ("PIP_", "GRAFT_")


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment of a child process of ours: an allow-list, and what keeps libraries quiet and local."""
    env = {k: v for k, v in os.environ.items() if k in PASSED_ON or k.startswith(PASSED_ON_PREFIXES)}
    return env | {
        "GRAFT_HOME": str(settings.home),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "USE_HUB_KERNELS": "NO",
        "TOKENIZERS_PARALLELISM": "false",
    }


def _default_home(space: bool) -> Path:
    persistent = Path("/data")
    return persistent if space and os.access(persistent, os.W_OK) else Path("data")


def _flag(env: Mapping[str, str], key: str, problems: list[str]) -> bool:
    value = env.get(key, "").strip().lower()
    if value not in TRUE + FALSE:
        problems.append(f"{key}={value!r}: expected 1 or 0.")
    return value in TRUE


def _choice(env: Mapping[str, str], key: str, choices: tuple[str, ...], problems: list[str]) -> str:
    value = env.get(key, "").strip().lower() or choices[0]
    if value not in choices:
        problems.append(f"{key}={value!r}: expected one of {', '.join(choices)}.")
    return value


def _port(env: Mapping[str, str], problems: list[str]) -> int:
    value = env.get("GRAFT_PORT") or env.get("GRADIO_SERVER_PORT") or "7860"
    if not (value.isascii() and value.isdigit() and 0 < int(value) < 65536):
        problems.append(f"GRAFT_PORT={value!r}: expected a number from 1 to 65535.")
        return 7860
    return int(value)
