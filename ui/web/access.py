"""Who asks, and what they may do: one question, `authorize`, put before every handler of the page.

On a machine's own loopback address its user is the owner. Where others can reach the page, they may use the tabs, and
whatever changes or shows what the owner has is for the owner alone, who signs in: with a password, or on a Hugging Face
Space with the account that the Space belongs to. Where neither is set up, nobody is the owner.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from http.cookies import CookieError, SimpleCookie
from importlib.util import find_spec
from typing import Any

from errors import BusyError, GraftError
from settings import Settings
from ui.web.rate_limit import Rate

COOKIE = "graft-session"
SESSION_S = 12 * 3600
MOST_SESSIONS = 100


class Action(StrEnum):
    """What a handler does; every handler names one."""

    LOOK = "look"
    """See what everybody sees: models, versions, examples."""
    ASK = "ask"
    """Have a tab answer."""
    TRAIN = "train"
    """Read rows, see runs, start, steer and delete them."""
    KEEP = "keep"
    """Promote, roll back, delete, take away and import versions, and see rows of their cards."""
    CORRECT = "correct"
    """Put answers right, and teach."""


OPEN = frozenset({Action.LOOK, Action.ASK})
"""What anybody may do who reaches the page."""
REFUSED = {
    Action.TRAIN: "Training is not for visitors.",
    Action.KEEP: "Managing versions is not for visitors.",
    Action.CORRECT: "Correcting answers is not for visitors.",
}


@dataclass(frozen=True)
class User:
    """Who asks."""

    name: str
    """As the history of a tab shows it."""
    owner: bool
    key: str = ""
    """By which a visitor's requests are counted: an address."""


class AccessError(GraftError):
    """Something that this user may not do."""


def permitted(user: User, action: Action) -> bool:
    """Whether `user` may do `action`."""
    return user.owner or action in OPEN


def authorize(user: User, action: Action, of: str = "") -> None:
    """Raise `AccessError` unless `user` may do `action`, with `of`, the thing that it is done to, in the message."""
    if not permitted(user, action):
        what = REFUSED[action] if not of else f"{of}: {REFUSED[action][0].lower()}{REFUSED[action][1:]}"
        raise AccessError(what, "It is for the owner of this page.", "Sign in as the owner, if that is you.")


class Access:
    """Recognizes who asks."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.time) -> None:
        self._settings, self._now = settings, now
        self._sessions: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._asking = Rate(settings.rate, max(1, settings.rate))

    @property
    def mode(self) -> str:
        """How somebody becomes the owner: `local` (everybody is), `password`, `huggingface` or `nobody`."""
        chosen = self._settings.sign_in
        # What Gradio signs people in with is there on a Space that has `hf_oauth`, and nowhere else.
        return "nobody" if chosen == "huggingface" and not find_spec("authlib") else chosen

    @property
    def possible(self) -> bool:
        """Whether anybody can be the owner, so that there is a use for what is the owner's alone."""
        return self.mode != "nobody"

    def user(self, request: Any) -> User:  # noqa: ANN401 - a Request of Gradio's, or None
        """Who asks; a stranger unless they prove otherwise."""
        key = address(request, self._settings.space)
        if self.mode == "local":
            return User("page", True, key)
        if self.mode == "password" and self.knows(cookie(request)):
            return User("owner", True, key)
        if self.mode == "huggingface":
            name = account(request)
            return User(name or "visitor", name in self._settings.owners, key)
        return User("visitor", False, key)

    def check(self, user: User, action: Action, of: str = "") -> None:
        """`authorize`, and that a visitor does not ask too often. Raises `AccessError` or `BusyError`."""
        authorize(user, action, of)
        if action is Action.ASK and not user.owner and (wait := self._asking.take(user.key)):
            why = f"One visitor may ask {self._settings.rate} times a minute."
            raise BusyError("You ask too often.", why, f"Try again in {wait:.0f} s.")

    def sign_in(self, password: str) -> str | None:
        """A new session, for the value of its cookie, if the password is right."""
        given, right = (hashlib.sha256(text.encode("utf-8", "replace")).digest()
                        for text in (password, self._settings.password))  # fmt: skip
        if self.mode != "password" or not secrets.compare_digest(given, right):
            return None
        token = secrets.token_urlsafe(32)
        with self._lock:
            self._sessions[_hashed(token)] = self._now() + SESSION_S
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return token

    def sign_out(self, token: str) -> None:
        """Forget a session."""
        with self._lock:
            self._sessions.pop(_hashed(token), None)

    def knows(self, token: str) -> bool:
        """Whether a cookie's value is that of a session that still lasts."""
        return bool(token) and self._sessions.get(_hashed(token), 0.0) > self._now()


def cookie(request: Any) -> str:  # noqa: ANN401
    """The value of our cookie, or nothing."""
    headers = getattr(request, "headers", None) or {}
    try:
        found = SimpleCookie(str(headers.get("cookie") or "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def account(request: Any) -> str:  # noqa: ANN401
    """The Hugging Face account that is signed in, by the session that the Space's own login has signed."""
    scope = getattr(getattr(request, "request", None), "scope", None)
    session: Mapping[str, Any] = (scope or {}).get("session") or {}
    told = session.get("oauth_info") or {}
    if float(told.get("expires_at") or 0) <= time.time():
        return ""
    return str((told.get("userinfo") or {}).get("preferred_username") or "")


def address(request: Any, behind_proxy: bool = False) -> str:  # noqa: ANN401
    """Where a request comes from. Behind a Space's proxy that is the last address that the proxy has added."""
    headers = getattr(request, "headers", None) or {}
    added = str(headers.get("x-forwarded-for") or "").rpartition(",")[2].strip() if behind_proxy else ""
    return added or str(getattr(getattr(request, "client", None), "host", "") or "")


def _hashed(token: str) -> str:
    """What is kept of a session, so that the memory of this process is no list of keys."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
