"""Requests to the Hugging Face Hub: errors, time limits, progress of downloads, and disk space."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from httpx2 import HTTPError
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo, ModelInfo
from huggingface_hub.utils.tqdm import tqdm

from errors import DataError, GraftError, ModelError
from store import quota

T = TypeVar("T")
Progress = Callable[[str, float | None], None]
"""`(phase, fraction)`: the phase is "download" or "convert", the fraction 0 to 1, or None while it is not known.
It may be called from another thread; raising from it cancels the work."""


def silent(phase: str, fraction: float | None) -> None:
    """A `Progress` that does nothing."""


class Meter:
    """Reports progress to a `Progress`, as fractions of `total` that never decrease."""

    def __init__(self, progress: Progress, phase: str, total: int) -> None:
        self._progress, self._phase, self._total, self._last = progress, phase, total, 0.0

    def at(self, done: float) -> None:
        """Report that `done` of `total` is done."""
        if self._total > 0:
            self._last = max(self._last, min(1.0, done / self._total))
        self._progress(self._phase, self._last if self._total > 0 else None)


def byte_counter(meter: Meter, before: int = 0) -> type[tqdm]:
    """Return a class of progress bars that print nothing and report bytes to the meter, `before` added."""

    class ByteCounter(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
            self._bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if self._bytes:
                self.n += n or 0
                meter.at(before + self.n)

    return ByteCounter


class Unreachable(Exception):
    """The Hub did not answer; the message is the end of a sentence that says how it failed."""


@dataclass(frozen=True)
class Kind:
    """A kind of repository: its noun in messages, and the class of its errors."""

    noun: str
    error: type[GraftError]


MODEL, DATA_SET = Kind("model", ModelError), Kind("data set", DataError)


def request(kind: Kind, repo: str, revision: str | None, call: Callable[[], T]) -> T:
    """Return the result of `call`, a request to the Hub; raises the kind's error, or `Unreachable`."""
    try:
        return call()
    except HfHubHTTPError as error:
        raise _refusal(kind, repo, revision, error) from error
    except HFValidationError as error:
        what = f"{repo} is not a {kind.noun} id."
        raise kind.error(what, "The Hub allows no such name.", "Write org/name.") from error
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise kind.error(f"{repo} does not fit on the disk.", "It is full.", "Free some space.") from error
        raise Unreachable("it did not answer") from error


def look_up(
    kind: Kind, repo: str, revision: str | None, seconds: float, token: bool | None = None
) -> ModelInfo | DatasetInfo:
    """Return the commit and the files of a revision; `token` False asks without the user's token.

    Raises the kind's error, and `Unreachable` without a valid answer within `seconds`.
    """
    describe: Callable[..., ModelInfo | DatasetInfo] = HfApi().model_info if kind is MODEL else HfApi().dataset_info
    ask = partial(describe, repo, revision=revision, files_metadata=True, timeout=seconds, token=token)
    try:
        return request(kind, repo, revision, lambda: _within(seconds, ask))
    except (ValueError, TypeError, KeyError) as error:  # the login page of a hotel, say, in place of the Hub
        raise Unreachable("something else answered") from error


def _refusal(kind: Kind, repo: str, revision: str | None, error: HfHubHTTPError) -> Exception:
    if isinstance(error, GatedRepoError):  # a subclass of RepositoryNotFoundError
        return kind.error(
            f"{repo} is gated.",
            "Its owners let in only people who accepted their terms.",
            "Accept them on its page on the Hub, then set HF_TOKEN to your access token and start again.",
        )
    if isinstance(error, RevisionNotFoundError):
        return kind.error(f"{repo} has no revision {revision}.", "The Hub knows only others of it.", "Check the name.")
    if isinstance(error, RepositoryNotFoundError):
        return kind.error(
            f"There is no {kind.noun} {repo} on the Hugging Face Hub.",
            "Or it is private and HF_TOKEN may not read it.",
            "Check the spelling, or set HF_TOKEN.",
        )
    status = error.response.status_code
    if status in (401, 403):
        return kind.error(f"The Hub refuses {repo}.", f"It answered with status {status}.", "Check HF_TOKEN.")
    return Unreachable(f"it answered with status {status}")


def _within(seconds: float, call: Callable[[], T]) -> T:
    """Return the result of `call`; raises `TimeoutError` after `seconds` in all, name resolution included.

    A late call goes on in a daemon thread.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="hub-look-up", daemon=True).start()
    return future.result(timeout=seconds)


def require_room(kind: Kind, repo: str, needed: int) -> None:
    """Raise the kind's error where the disk of the Hub's cache has fewer than `needed` bytes free."""
    quota.require_disk(Path(constants.HF_HUB_CACHE), needed, kind.error, f"{repo} does not fit on the disk.", "HF_HOME")
