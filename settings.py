"""Every setting of a Graft process, read once from the environment. The only reader of `os.environ`.

`Settings.from_env()` reports all invalid values at once, each with its key, its value and what was expected.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from errors import ConfigError, GraftError

# bitsandbytes takes compiled code from the Hub by this package as soon as it is imported, and asks nobody: not in any
# process here, whoever has installed it. That it could not is no news.
sys.modules["kernels"] = None  # type: ignore[assignment]
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

REPOSITORY = Path(__file__).resolve().parent
RELEASE = "0.2.0"
"""Version of this Graft."""
HOME_RECORD = "home.json"
"""File of a home that names the release which wrote to it last, and the format; homes of 0.1 have none."""
HOME_FORMAT = 1
"""Format of a home. A release raises it when earlier ones would misread what it writes there."""
QUANTIZATIONS = ("auto", "none", "8bit", "4bit")
PRECISIONS = ("auto", "float32", "bfloat16")
GATES = ("not-worse", "better", "always", "never")
MODEL_PREFIX = "GRAFT_MODEL_"
SHORTEST_PASSWORD = 12
"""Characters: with the guesses that are let through, shorter ones could be found."""
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
    precision: str = "auto"
    """`GRAFT_PRECISION`: what resident bases are held and computed in where they are not quantized: float32, bfloat16,
    or auto (bfloat16 on a GPU that has it; float32 on a CPU, where an answer is the same alone and among others)."""
    gate: str = "not-worse"
    """`GRAFT_GATE`: when a new version may answer by itself: not-worse, better (surely), always, never."""
    offline: bool = False
    """`HF_HUB_OFFLINE`: never ask the Hugging Face Hub."""
    space: bool = False
    """True on a Hugging Face Space (`SPACE_ID` is set)."""
    space_hosts: tuple[str, ...] = ()
    """`SPACE_HOST`: the names under which people reach a Space."""
    password: str = field(default="", repr=False)
    """`GRAFT_PASSWORD` or the content of `GRAFT_PASSWORD_FILE`: what the owner signs in with."""
    oauth: bool = False
    """Whether the Space lets people sign in with their Hugging Face account (`OAUTH_CLIENT_ID` is set)."""
    owners: tuple[str, ...] = ()
    """`GRAFT_OWNERS`: the Hugging Face accounts that own a Space; the one that it belongs to, if it names none."""
    rate: int = 60
    """`GRAFT_RATE`: how many answers a visitor may ask for in a minute."""
    upload_bytes: int = 50 * 10**6
    """`GRAFT_UPLOAD_MB`: the size of a file that may be uploaded."""
    rows: int = 50_000_000
    """`GRAFT_ROWS`: how many rows a file may have; one with more is refused."""
    text_length: int = 200_000
    """`GRAFT_TEXT_LENGTH`: characters of all that one request says."""
    new_tokens: int = 4096
    """`GRAFT_NEW_TOKENS`: tokens of one answer."""
    queue: int = 256
    """`GRAFT_QUEUE`: requests that may wait at once; further ones are told to come back."""
    disk_bytes: int = 100 * 10**9
    """`GRAFT_DISK_GB`: what the home may take of the disk before uploads and runs are refused; 0 is without limit."""
    run_seconds: int = 72 * 3600
    """`GRAFT_RUN_HOURS`: how long a run may go on before it is paused with a checkpoint."""
    run_memory_bytes: int = 0
    """`GRAFT_RUN_MEMORY_GB`: what a run may take of the memory; 0 is twice what it was estimated to need and 2 GB
    on a CPU, and no limit on a GPU."""
    cache_bytes: int = 10**10
    """`GRAFT_CACHE_GB`: how much disk prepared data may take before what was used longest ago is removed."""
    download_bytes: int = 5 * 10**9
    """`GRAFT_DOWNLOAD_GB`: how much of one data set of the Hub is downloaded at most."""
    models: Mapping[str, str] = field(default_factory=dict)
    """`GRAFT_MODEL_<TAB>`: a Hub id or folder that replaces that tab's base."""

    @property
    def sign_in(self) -> str:
        """How somebody becomes the owner: `local` (everybody is), `password`, `huggingface` or `nobody`.

        A password that is set is asked for on loopback too: a proxy there may let the world in.
        """
        if self.space:
            return "huggingface" if self.oauth and self.owners else "nobody"
        if self.password:
            return "password"
        return "local" if self.host in LOOPBACK else "nobody"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment; raises `ConfigError` naming every invalid value, or as `check_release` does."""
        env = os.environ if environ is None else environ
        problems: list[str] = []
        space = bool(env.get("SPACE_ID"))
        settings = cls(
            home=_home(env),
            plugins=Path(env.get("GRAFT_PLUGINS") or REPOSITORY / "plugins").expanduser().absolute(),
            host=env.get("GRAFT_HOST") or ("0.0.0.0" if space else "127.0.0.1"),  # noqa: S104 - a Space's own proxy
            port=_port(env, problems),
            quantize=_choice(env, "GRAFT_QUANTIZE", QUANTIZATIONS, problems),
            precision=_choice(env, "GRAFT_PRECISION", PRECISIONS, problems),
            gate=_choice(env, "GRAFT_GATE", GATES, problems),
            offline=_flag(env, "HF_HUB_OFFLINE", problems),
            space=space,
            space_hosts=tuple(_listed(env.get("SPACE_HOST"))),
            password=_password(env, problems),
            oauth=bool(env.get("OAUTH_CLIENT_ID") and env.get("OAUTH_CLIENT_SECRET")),
            owners=tuple(_listed(env.get("GRAFT_OWNERS")) or _listed(env.get("SPACE_ID", "").partition("/")[0])),
            rate=_count(env, "GRAFT_RATE", 60, problems),
            upload_bytes=_count(env, "GRAFT_UPLOAD_MB", 50, problems) * 10**6,
            rows=_count(env, "GRAFT_ROWS", 50_000_000, problems),
            text_length=_count(env, "GRAFT_TEXT_LENGTH", 200_000, problems),
            new_tokens=_count(env, "GRAFT_NEW_TOKENS", 4096, problems),
            queue=_count(env, "GRAFT_QUEUE", 256, problems),
            disk_bytes=_gigabytes(env, "GRAFT_DISK_GB", 100, problems),
            run_seconds=_count(env, "GRAFT_RUN_HOURS", 72, problems) * 3600,
            run_memory_bytes=_gigabytes(env, "GRAFT_RUN_MEMORY_GB", 0, problems),
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
        check_release(settings.home)
        return settings


def check_release(home: Path) -> dict[str, str | int]:
    """Raise `GraftError` for a home in a newer format; returns the record that a process writes before it writes more.

    A record that cannot be read counts as none: it is written again at the next start.
    """
    try:
        found = json.loads((home / HOME_RECORD).read_text(encoding="utf-8"))
        newer = int(found["format"]) > HOME_FORMAT
    except (OSError, ValueError, TypeError, KeyError):
        newer = False
    if newer:
        raise GraftError(
            f"The home was written by a newer Graft, {found.get('release', 'of unknown release')}.",
            f"This is Graft {RELEASE}, which would misread it.",
            "Update this Graft, or set GRAFT_HOME to another folder.",
        )
    return {"release": RELEASE, "format": HOME_FORMAT}


PASSED_ON = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|CONDA_PREFIX|LD_LIBRARY_PATH|DYLD_\w+|CUDA_\w+|NVIDIA_\w+|ROCR_\w+"
    r"|HIP_\w+|G?OMP_\w+|MKL_\w+|OPENBLAS_\w+|HF_HOME|HF_HUB_CACHE|HF_HUB_OFFLINE|HF_ENDPOINT|XDG_CACHE_HOME|GRAFT_\w+|PIP_\w+"
    r"|SSL_CERT_\w+|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE|(HTTPS?|NO)_PROXY|(https?|no)_proxy"
)
"""What a child process needs to find its libraries, its GPU and its index, and no more: above all no token."""
SHARED = {"GOMP_SPINCOUNT": "20000", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256"}
"""Threads that wait for work spin for 0.2 ms, not for 3, and then sleep: long enough to be awake for the next small
product of a generation's step, a third of which waking them would take; short enough that two processes on the same
cores (a run beside the page) do not make each other several times slower. Of kernels for bfloat16, with their buffers,
oneDNN keeps 1,024, which can come to a gigabyte; with 64 a person who classifies alone waits half as long again for
kernels that are made anew. Set before torch is imported."""
LEAN = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16"}
"""For runs, whose micro-batches come in many shapes and whose steps do not hang on a moment."""
FOLDERS = ("GRAFT_HOME", "GRAFT_PLUGINS", MODEL_PREFIX)
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY", re.IGNORECASE)


def child_environment(**extra: str) -> dict[str, str]:
    """The environment of a child process of ours: an allow-list, and what keeps libraries quiet and private."""
    quiet = {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_TOKEN_PATH": os.devnull,
        "USE_HUB_KERNELS": "NO",
        "TOKENIZERS_PARALLELISM": "true",
    }
    kept = {k: value for k, value in os.environ.items() if PASSED_ON.fullmatch(k) and not SECRET.search(k)}
    # Children run in the repository's folder, whatever folder this process was started in.
    folders = {k: str(Path(v).absolute()) for k, v in kept.items() if k.startswith(FOLDERS) and v and Path(v).exists()}
    return SHARED | kept | folders | quiet | extra


def installer_environment(**extra: str) -> dict[str, str]:
    """This process's environment without secrets, plus `extra`; pip's own settings are the user's and stay."""
    kept = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or not SECRET.search(key)}
    return kept | extra


OURS_OF_GRADIO = ("GRADIO_SERVER_PORT", "GRADIO_TEMP_DIR")
"""Gradio's own variables that mean something here; each of the others could open what our settings keep closed."""
UPLOADS = "uploads"
"""Where uploads and files to take away lie for a day, below the home, so that they count as what it takes."""


def prepare_environment() -> None:
    """Make the page's own process private: no share link, no telemetry, no setting of Gradio's that we did not make."""
    for key in [key for key in os.environ if key.startswith("GRADIO_") and key not in OURS_OF_GRADIO]:
        del os.environ[key]
    os.environ.update({"GRADIO_ANALYTICS_ENABLED": "False", "GRADIO_RUN_HISTORY": "False"})
    # Of the last 10,000 requests Gradio makes a table after each, for /monitoring, which is closed: 8.5 ms of its lock.
    os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(10**9)
    os.environ.update({"HF_HUB_DISABLE_TELEMETRY": "1", "USE_HUB_KERNELS": "NO"})
    uploads = _home(os.environ) / UPLOADS
    with suppress(OSError):  # which is said once the page can say it; Gradio writes there as soon as it is imported
        uploads.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("GRADIO_TEMP_DIR", str(uploads))
    for key, value in SHARED.items():
        os.environ.setdefault(key, value)


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("GRAFT_HOME") or _default_home(bool(env.get("SPACE_ID")))).expanduser().absolute()


def _default_home(space: bool) -> Path:
    persistent = Path("/data")
    return persistent if space and os.access(persistent, os.W_OK) else Path("data")


def _flag(env: Mapping[str, str], key: str, problems: list[str]) -> bool:
    value = env.get(key, "").strip().lower()
    if value not in TRUE + FALSE:
        problems.append(f"{key}={value!r}: expected 1 or 0.")
    return value in TRUE


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _password(env: Mapping[str, str], problems: list[str]) -> str:
    """What the owner signs in with; never part of a message."""
    password, file = env.get("GRAFT_PASSWORD", ""), env.get("GRAFT_PASSWORD_FILE", "")
    if password and file:
        problems.append("GRAFT_PASSWORD and GRAFT_PASSWORD_FILE are both set: expected one of them.")
    if file:
        try:
            password = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            problems.append(f"GRAFT_PASSWORD_FILE={file!r}: expected a text file that can be read.")
            return ""
    if (password or file) and len(password) < SHORTEST_PASSWORD:
        problems.append(f"The password is too short: expected at least {SHORTEST_PASSWORD} characters.")
    return password


def _count(env: Mapping[str, str], key: str, default: int, problems: list[str]) -> int:
    value = env.get(key) or str(default)
    if not re.fullmatch(r"[1-9][0-9]{0,8}", value):
        problems.append(f"{key}={value!r}: expected a whole number from 1.")
        return default
    return int(value)


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
