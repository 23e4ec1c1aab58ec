"""Models in the Hugging Face cache and on the Hub, always as one commit, always without code or pickles.

A Hub that cannot be reached is asked once and then left alone for five minutes: name resolution and connection
together get three seconds, after which the caller goes on without it.
"""

from __future__ import annotations

import errno
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateAnswer
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils.tqdm import tqdm

from errors import ModelError
from store.preflight import check_names
from store.progress import Meter, Progress

ALLOWED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
IGNORED = ["*/*", "consolidated*.safetensors", "*.fp16.safetensors"]
"""Other formats in subfolders (onnx, openvino, original), and the same weights a second time."""
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack")
REACH_SECONDS = 3.0
FORGET_SECONDS = 300.0

T = TypeVar("T")


class Unreachable(Exception):
    """The Hub did not answer; the message says how it failed, in a few words."""


def cached_snapshot(repo: str, revision: str | None) -> Path | None:
    """The complete snapshot in the Hugging Face cache, or None; asks nothing of the network."""
    try:
        folder = _snapshot(repo, revision, local_files_only=True)
    except (LocalEntryNotFoundError, OSError):
        return None
    # Another program may have fetched a tokenizer alone; then there is more to ask the Hub for.
    whole = (folder / "config.json").is_file() and any(p.suffix in WEIGHTS for p in folder.iterdir())
    return folder if whole else None


class Hub:
    """The Hub as one process sees it: it remembers for a while that it could not be reached. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._quiet_until = 0.0

    def fetch(self, repo: str, revision: str | None, progress: Progress) -> tuple[Path, str]:
        """Download a model and return its folder and its commit sha.

        Raises `ModelError` for what the Hub refuses, `Unreachable` when it does not answer.
        """
        info = self._look_up(repo, revision)
        names = [sibling.rfilename for sibling in info.siblings or ()]
        check_names([name for name in names if "/" not in name], repo)
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
        total = sum(size for name, size in sizes.items() if _matches(name, ALLOWED) and not _matches(name, IGNORED))
        _check_room(repo, total)
        meter = Meter(progress, "download", total)
        meter.at(0)
        # Asked for by name, it resolves the name to a commit once, downloads that commit, and notes in the cache which
        # one the name stands for; asked for by commit it would not, and the cache would not know the name.
        path = _explained(repo, revision, lambda: _snapshot(repo, revision, tqdm_class=_byte_counter(meter)))
        meter.at(total)
        return path, path.name

    def _look_up(self, repo: str, revision: str | None) -> ModelInfo:
        """Which commit and which files the revision is; one caller at a time, so that only one waits in vain."""
        with self._lock:
            if time.monotonic() < self._quiet_until:
                raise Unreachable("it did not answer a moment ago")
            try:
                return _explained(repo, revision, lambda: _within(REACH_SECONDS, lambda: _describe(repo, revision)))
            except Unreachable:
                self._quiet_until = time.monotonic() + FORGET_SECONDS
                raise


def _describe(repo: str, revision: str | None) -> ModelInfo:
    try:
        return HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=REACH_SECONDS)
    except HFValidationError:
        raise
    except (ValueError, TypeError, KeyError) as error:  # the login page of a hotel, say, in place of the Hub
        raise Unreachable("something else answered") from error


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _snapshot(repo: str, revision: str | None, **options: Any) -> Path:  # noqa: ANN401 - passed on as they are
    return Path(snapshot_download(repo, revision=revision, allow_patterns=ALLOWED, ignore_patterns=IGNORED, **options))


def _explained(repo: str, revision: str | None, ask: Callable[[], T]) -> T:
    """Run a request to the Hub; its errors become `ModelError`, or `Unreachable` when there was no proper answer."""
    try:
        return ask()
    except HfHubHTTPError as error:
        raise _refusal(repo, revision, error) from error
    except HFValidationError as error:
        raise ModelError(f"{repo} is not a model id.", "The Hub allows no such name.", "Write org/name.") from error
    except (HTTPError, OSError, LateAnswer) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise ModelError(f"{repo} does not fit on the disk.", "It is full.", "Free some space.") from error
        raise Unreachable("it did not answer") from error


def _refusal(repo: str, revision: str | None, error: HfHubHTTPError) -> Exception:
    """What an error status means; a gated repository is a kind of missing one there, so it comes first."""
    if isinstance(error, GatedRepoError):
        return ModelError(
            f"{repo} is gated.",
            "Its owners let in only people who accepted their terms.",
            "Accept them on its page on the Hub, then set HF_TOKEN to your access token and start again.",
        )
    if isinstance(error, RevisionNotFoundError):
        return ModelError(f"{repo} has no revision {revision}.", "The Hub knows only others of it.", "Check the name.")
    if isinstance(error, RepositoryNotFoundError):
        return ModelError(
            f"There is no model {repo} on the Hugging Face Hub.",
            "Or it is private and HF_TOKEN may not read it.",
            "Check the spelling, or set HF_TOKEN.",
        )
    status = error.response.status_code
    if status in (401, 403):
        return ModelError(f"The Hub refuses {repo}.", f"It answered with status {status}.", "Check HF_TOKEN.")
    return Unreachable(f"it answered with status {status}")


def _within(seconds: float, call: Callable[[], T]) -> T:
    """The result of `call`, or `LateAnswer` after `seconds` of everything, name resolution included.

    A thread that is given up on goes on by itself and holds up neither the caller nor the end of the process.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="hub-look-up", daemon=True).start()
    return future.result(timeout=seconds)


def _check_room(repo: str, needed: int) -> None:
    cache = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if free < needed:
        raise ModelError(
            f"{repo} does not fit on the disk.",
            f"It has {needed // 1_000_000} MB and {free // 1_000_000} MB are free.",
            "Free some space, or set HF_HOME to a larger disk.",
        )


def _byte_counter(meter: Meter) -> type[tqdm]:
    """A progress bar for `snapshot_download` that prints nothing and tells the meter the bytes that have come."""

    class ByteCounter(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
            self._bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if self._bytes:
                self.n += n or 0
                meter.at(self.n)

    return ByteCounter
