"""Access control: users, sessions, permitted actions and rate limits, checked before every handler of the page.

On the loopback address every user is the owner. Where others can reach the page, visitors may use the tabs, and
whatever changes or shows the owner's data is for the owner alone, who signs in: with a password, or on a Hugging Face
Space with the account that the Space belongs to. Where neither is set up, nobody is the owner.

Gradio hides the text of every exception but its own `gr.Error` from the page and from API clients. So `guarded` turns a
`GraftError` into one, and logs any other exception under a short id that the user can quote.
"""

from __future__ import annotations

import functools
import hashlib
import html
import inspect
import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from typing import Any, TypeVar

import gradio as gr
from starlette.requests import cookie_parser

from errors import BusyError, GraftError, Text
from settings import Settings
from ui.i18n import request_words

COOKIE = "graft-session"
SESSION_S = 12 * 3600
MOST_SESSIONS = 100
MOST_KEYS = 10_000
"""Most keys of a `RateLimiter`, so that they cannot fill the memory."""
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
F = TypeVar("F", bound=Callable[..., Any])
log = logging.getLogger("graft")


class Action(StrEnum):
    """A kind of handler; every handler names one."""

    LOOK = "look"
    """See models, versions and examples."""
    ASK = "ask"
    """Ask a tab for an answer."""
    TRAIN = "train"
    """Read rows; see, start, control and delete runs."""
    KEEP = "keep"
    """Promote, roll back, delete, download and import versions, and see rows of their cards."""
    CORRECT = "correct"
    """Correct answers, and train on the corrections."""


OPEN = frozenset({Action.LOOK, Action.ASK})
"""Actions that visitors may do."""
REFUSED = {
    Action.TRAIN: "Training is not for visitors.",
    Action.KEEP: "Managing versions is not for visitors.",
    Action.CORRECT: "Correcting answers is not for visitors.",
}


@dataclass(frozen=True)
class User:
    """The sender of a request."""

    name: str
    """Name in the history of a tab."""
    owner: bool
    key: str = ""
    """Key of the rate limit: the address."""


class AccessError(GraftError):
    """An action that this user may not do."""


def permitted(user: User, action: Action) -> bool:
    """Return whether `user` may do `action`."""
    return user.owner or action in OPEN


class RateLimiter:
    """A token bucket (Turner, 1986) for each key, such as an address: `burst` at once, then `per_minute`. Thread-safe.

    Beyond `MOST_KEYS` keys the least recent is forgotten, and has a full bucket again.
    """

    def __init__(self, per_minute: float, burst: int, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is a clock in seconds."""
        self._per_s, self._burst, self._now = per_minute / 60, float(burst), now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key: str, cost: float = 1.0) -> float:
        """Take `cost` tokens and return 0, or take none and return the seconds until there are enough."""
        with self._lock:
            now = self._now()
            left, at = self._buckets.pop(key, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._per_s)
            missing = max(0.0, min(cost, self._burst) - left)
            self._buckets[key] = (left if missing else left - cost, now)
            while len(self._buckets) > MOST_KEYS:
                self._buckets.popitem(last=False)
        return missing / self._per_s if missing else 0.0

    def give(self, key: str) -> None:
        """Fill the bucket of a key."""
        with self._lock:
            self._buckets.pop(key, None)


class Access:
    """Identifies users, keeps the owner's sessions, and refuses what a user may not do."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._settings, self._now = settings, now
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._limiter = RateLimiter(settings.rate, max(1, settings.rate))
        chosen = settings.sign_in
        # Gradio's sign-in exists on a Space that has `hf_oauth`, and nowhere else.
        self.mode = "nobody" if chosen == "huggingface" and not find_spec("authlib") else chosen
        """How a user becomes the owner: `local` (everybody is), `password`, `huggingface` or `nobody`."""
        self.possible = self.mode != "nobody"
        """True if there can be an owner."""

    def user(self, request: Any) -> User:  # noqa: ANN401 - a request of Gradio or Starlette, or None
        """Return the sender of a request; a visitor unless they prove otherwise."""
        key = address(request, self._settings.space)
        if self.mode == "local":
            return User("page", True, key)
        if self.mode == "password" and self.knows(cookie(request)):
            return User("owner", True, key)
        if self.mode == "huggingface":
            name = account(request)
            return User(name or "visitor", name in self._settings.owners, key)
        return User("visitor", False, key)

    def check(self, user: User, action: Action) -> None:
        """Raise `AccessError` where `user` may not do `action`, and `BusyError` for a visitor who asks too often."""
        if not permitted(user, action):
            why = "It is for the owner of this page."
            raise AccessError(REFUSED[action], why, "Sign in as the owner, if that is you.")
        if action is Action.ASK and not user.owner and (wait := self._limiter.take(user.key)):
            why = Text("One visitor may ask {n} times a minute.", n=self._settings.rate)
            raise BusyError("You ask too often.", why, Text("Try again in {n} s.", n=f"{wait:.0f}"))

    def sign_in(self, password: str) -> str | None:
        """Begin a session and return its cookie's value; None where the password is wrong."""
        given, right = (_digest(text) for text in (password, self._settings.password))
        if self.mode != "password" or not secrets.compare_digest(given, right):
            return None
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[_digest(token)] = self._now() + SESSION_S
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return token

    def sign_out(self, token: str) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(_digest(token), None)

    def knows(self, token: str) -> bool:
        """Return whether a cookie's value is that of a session that still lasts."""
        return bool(token) and self._sessions.get(_digest(token), 0.0) > self._now()


def cookie(request: Any) -> str:  # noqa: ANN401
    """Return the value of the session cookie, or an empty text."""
    headers = getattr(request, "headers", None) or {}
    return cookie_parser(str(headers.get("cookie") or "")).get(COOKIE, "")


def account(request: Any) -> str:  # noqa: ANN401
    """Return the name of the signed-in Hugging Face account, from the session cookie that Gradio's login signed."""
    scope = getattr(getattr(request, "request", None), "scope", None)
    session: Mapping[str, Any] = (scope or {}).get("session") or {}
    oauth = session.get("oauth_info") or {}
    if float(oauth.get("expires_at") or 0) <= time.time():
        return ""
    return str((oauth.get("userinfo") or {}).get("preferred_username") or "")


def address(request: Any, behind_proxy: bool = False) -> str:  # noqa: ANN401
    """Return the address of a request's sender; behind a Space's proxy the last one in X-Forwarded-For."""
    headers = getattr(request, "headers", None) or {}
    added = str(headers.get("x-forwarded-for") or "").rpartition(",")[2].strip() if behind_proxy else ""
    return added or str(getattr(getattr(request, "client", None), "host", "") or "")


def _digest(text: str) -> str:
    """Hash a secret, so that passwords are compared in constant time and no cookie is kept in memory."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def guarded(access: Access, action: Action, handler: F, silently: bool = False) -> F:
    """Wrap a handler, a function or a generator, so that it runs only for users who may do `action`.

    With `silently` other users get no error and no change, for events that the page sends by itself. Gradio passes the
    request to the parameter that is annotated with its type; the wrapper has one of its own before the handler's.
    """

    def allowed(caller: gr.Request) -> bool:
        user = access.user(caller)
        if silently and not permitted(user, action):
            return False
        access.check(user, action)
        return True

    @functools.wraps(handler)
    def call(caller: gr.Request, /, *values: Any, **named: Any) -> Any:  # noqa: ANN401 - any handler's
        with explained():
            return handler(*values, **named) if allowed(caller) else gr.skip()

    @functools.wraps(handler)
    def stream(caller: gr.Request, /, *values: Any, **named: Any) -> Iterator[Any]:  # noqa: ANN401
        with explained():
            if allowed(caller):
                yield from handler(*values, **named)
            else:
                yield gr.skip()

    wrapper: Any = stream if inspect.isgeneratorfunction(handler) else call
    signature = inspect.signature(handler)
    own = inspect.Parameter("caller", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    wrapper.__signature__ = signature.replace(parameters=[own, *signature.parameters.values()])
    wrapper.__annotations__ = {**getattr(handler, "__annotations__", {}), "caller": gr.Request}
    wrapper.action = action
    return wrapper  # type: ignore[no-any-return]


@contextmanager
def explained() -> Iterator[None]:
    """Turn any exception of the body into a `gr.Error` with a message for the user."""
    try:
        yield
    except gr.Error:
        raise
    except (Exception, SystemExit) as error:  # a plugin that calls exit() ends its request, and not the server
        # The page shows messages as HTML and API clients as text, so only what could be markup is escaped.
        text = html.escape(redacted(sentence(error)), quote=False)
        raise gr.Error(text, duration=15, title="Graft", print_exception=False) from None


def sentence(error: BaseException) -> str:
    """Return an error's text in the language of the request; a defect is logged under a number, which is its text."""
    say = request_words()
    if isinstance(error, GraftError):
        text = " ".join(say.sentence(part) for part in (error.what, error.why, error.next) if part)
        return text.replace("。 ", "。")  # no space stands between Chinese sentences
    if isinstance(error, gr.Error):
        return str(error.message)
    number = secrets.token_hex(3)
    log.error("error %s", number, exc_info=error)
    template = "Something went wrong in Graft itself. The log has the details under {number}."
    return say.sentence(Text(template, number=number))


def redacted(text: str) -> str:
    """Replace Hub tokens, which messages of libraries may quote with an address or a header."""
    return TOKEN.sub("hf_...", text)


class Redacting(logging.Formatter):
    """Formats log records, tracebacks included, without Hub tokens."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as text."""
        return redacted(super().format(record))


def log_without_tokens() -> None:
    """Format everything that this process logs with `Redacting`."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
