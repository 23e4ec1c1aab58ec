"""What every request to the Hub has around it: errors as sentences, a time limit, progress, room on disk."""

from __future__ import annotations

import errno
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateAnswer
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from httpx2 import HTTPError
from huggingface_hub import constants
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import tqdm

from errors import DataError, GraftError, ModelError
from hub.progress import Meter

T = TypeVar("T")


class Unreachable(Exception):
    """The Hub did not answer; the message says how it failed, in a few words."""


@dataclass(frozen=True)
class Kind:
    """A kind of repository: what it is called, and what is raised when there is something wrong with one."""

    noun: str
    error: type[GraftError]


MODEL, DATA_SET = Kind("model", ModelError), Kind("data set", DataError)


def explained(kind: Kind, repo: str, revision: str | None, ask: Callable[[], T]) -> T:
    """Run a request to the Hub; its errors become the kind's, or `Unreachable` when there was no proper answer."""
    try:
        return ask()
    except HfHubHTTPError as error:
        raise _refusal(kind, repo, revision, error) from error
    except HFValidationError as error:
        what = f"{repo} is not a {kind.noun} id."
        raise kind.error(what, "The Hub allows no such name.", "Write org/name.") from error
    except (HTTPError, OSError, LateAnswer) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise kind.error(f"{repo} does not fit on the disk.", "It is full.", "Free some space.") from error
        raise Unreachable("it did not answer") from error


def _refusal(kind: Kind, repo: str, revision: str | None, error: HfHubHTTPError) -> Exception:
    """What an error status means; a gated repository is a kind of missing one there, so it comes first."""
    if isinstance(error, GatedRepoError):
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


def within(seconds: float, call: Callable[[], T]) -> T:
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


def check_room(kind: Kind, repo: str, needed: int) -> None:
    """Raise the kind's error where the cache's disk has fewer than `needed` bytes free."""
    cache = Path(constants.HF_HUB_CACHE).expanduser().absolute()
    free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.exists())).free
    if free < needed:
        raise kind.error(
            f"{repo} does not fit on the disk.",
            f"It has {needed // 1_000_000} MB and {free // 1_000_000} MB are free.",
            "Free some space, or set HF_HOME to a larger disk.",
        )


def byte_counter(meter: Meter, before: int = 0) -> type[tqdm]:
    """A progress bar for a download that prints nothing and tells the meter the bytes that have come after `before`."""

    class ByteCounter(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
            self._bytes = options.get("unit") == "B"
            super().__init__(*args, **{**options, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if self._bytes:
                self.n += n or 0
                meter.at(before + self.n)

    return ByteCounter
