"""Every setting of a Graft process, read once from the environment. The only reader of `os.environ`.

`Settings.from_env()` reports all invalid values at once, each with its key, its value and what was expected.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from errors import ConfigError

REPOSITORY = Path(__file__).resolve().parent
QUANTIZATIONS = ("auto", "none", "8bit", "4bit")
GATES = ("not-worse", "better", "always", "never")
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
    gate: str = "not-worse"
    """`GRAFT_GATE`: when a new version may answer by itself: not-worse, better (surely), always, never."""
    offline: bool = False
    """`HF_HUB_OFFLINE`: never ask the Hugging Face Hub."""
    space: bool = False
    """True on a Hugging Face Space (`SPACE_ID` is set)."""
    remote_training: bool = False
    """`GRAFT_REMOTE_TRAINING`: let people who reach this app from elsewhere train and promote."""
    cache_bytes: int = 10**10
    """`GRAFT_CACHE_GB`: how much disk prepared data may take before what was used longest ago is removed."""
    download_bytes: int = 5 * 10**9
    """`GRAFT_DOWNLOAD_GB`: how much of one data set of the Hub is downloaded at most."""
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
            gate=_choice(env, "GRAFT_GATE", GATES, problems),
            offline=_flag(env, "HF_HUB_OFFLINE", problems),
            space=space,
            remote_training=_flag(env, "GRAFT_REMOTE_TRAINING", problems),
            cache_bytes=_gigabytes(env, "GRAFT_CACHE_GB", 10, problems),
            download_bytes=_gigabytes(env, "GRAFT_DOWNLOAD_GB", 5, problems),
            models={
                k[len(MODEL_PREFIX) :].lower(): str(Path(v).absolute()) if Path(v).is_dir() else v
                for k, v in env.items()
                if k.startswith(MODEL_PREFIX) and v
            },
        )
        if problems:
            raise ConfigError("The environment", problems, "Correct these variables and start again.")
        return settings


PASSED_ON = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|CONDA_PREFIX|LD_LIBRARY_PATH|DYLD_\w+|CUDA_\w+|NVIDIA_\w+|ROCR_\w+"
    r"|HIP_\w+|G?OMP_\w+|MKL_\w+|OPENBLAS_\w+|HF_HOME|HF_HUB_CACHE|HF_HUB_OFFLINE|HF_ENDPOINT|XDG_CACHE_HOME|GRAFT_\w+|PIP_\w+"
    r"|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(HTTPS?|NO)_PROXY|(https?|no)_proxy"
)
"""What a child process needs to find its libraries, its GPU and its index, and no more: above all no token."""
SHARED = {"GOMP_SPINCOUNT": "1000"}
"""Threads that wait soon sleep instead of spinning: where two processes compute on the same cores (a run beside the
page), spinning makes both of them several times slower. Takes effect where it is set before torch is imported."""
LEAN = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
"""For runs, whose micro-batches come in many shapes: oneDNN keeps kernels and their buffers for 1,024 of them, hundreds
of megabytes on processors that compute in bfloat16, and makes one again in a moment."""
FOLDERS = ("GRAFT_HOME", "GRAFT_PLUGINS", MODEL_PREFIX)
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY", re.IGNORECASE)


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of a child process of ours: an allow-list, and what keeps libraries quiet and private."""
    quiet = {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_TOKEN_PATH": os.devnull,
        "USE_HUB_KERNELS": "NO",
        "TOKENIZERS_PARALLELISM": "true",
    }
    kept = {key: value for key, value in os.environ.items() if PASSED_ON.fullmatch(key)}
    # Children run in the repository's folder, whatever folder this process was started in.
    folders = {k: str(Path(v).absolute()) for k, v in kept.items() if k.startswith(FOLDERS) and v and Path(v).exists()}
    return SHARED | kept | folders | quiet | extra


def installer_environment(**extra: str) -> dict[str, str]:
    """This process's environment without secrets, plus `extra`; pip's own settings are the user's and stay."""
    kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or not SECRET.search(key)}
    return kept | extra


CLEARED = (
    "GRADIO_SHARE", "GRADIO_ALLOWED_PATHS", "GRADIO_MCP_SERVER", "GRADIO_VIBE_MODE", "GRADIO_LOCAL_DEV_MODE",
    "GRADIO_HOT_RELOAD", "GRADIO_WATCH_DIRS", "GRADIO_HISTORY_BUCKET", "GRADIO_SSR_MODE", "GRADIO_ROOT_PATH",
)  # fmt: skip
"""Variables by which Gradio would open what our own settings keep closed."""


def prepare_environment() -> None:
    """Make the page's own process private: no share link, no telemetry, no setting of Gradio's that we did not make."""
    for key in CLEARED:
        os.environ.pop(key, None)
    os.environ.update({"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"})
    os.environ.update({"HF_HUB_DISABLE_TELEMETRY": "1"})
    for key, value in SHARED.items():
        os.environ.setdefault(key, value)


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


def _gigabytes(env: Mapping[str, str], key: str, default: int, problems: list[str]) -> int:
    value = env.get(key) or str(default)
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,3})?", value):
        problems.append(f"{key}={value!r}: expected a number of gigabytes, 0 or more.")
        return 0
    return int(float(value) * 1e9)


def _port(env: Mapping[str, str], problems: list[str]) -> int:
    value = env.get("GRAFT_PORT") or env.get("GRADIO_SERVER_PORT") or "7860"
    if not (value.isascii() and value.isdigit() and 0 < int(value) < 65536):
        problems.append(f"GRAFT_PORT={value!r}: expected a number from 1 to 65535.")
        return 7860
    return int(value)
