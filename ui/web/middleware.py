"""What stands before Gradio: requests that another site's page sends, bodies without end, and pages that frame ours.

Gradio's `strict_cors` hides only the answers to requests of other sites, accepts any of them where the host is not a
local one, and lets an upload through that a browser sends without asking first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from types import SimpleNamespace
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from settings import LOOPBACK, Settings
from store import quota
from ui.web.access import Access, address
from ui.web.rate_limit import Rate
from ui.web.signin import SignIn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_CALL = 16 * 2**20
"""Bytes of a request that is no upload: texts and a conversation. More where `GRAFT_TEXT_LENGTH` needs more."""
BYTES_A_CHARACTER = 12
"""Of a character in JSON at most: two escapes of six bytes."""
AROUND_FILES = 2**20
"""Bytes of an upload beside its files."""
UPLOADS_A_MINUTE = 20
SAFE = ("GET", "HEAD", "OPTIONS")


def middleware(settings: Settings, access: Access) -> list[Middleware]:
    """What every request passes, outermost first.

    On loopback only requests for this machine by its own names: another name that leads here is a page's trick (DNS
    rebinding). Elsewhere the names that people use are not known here.
    """
    found = [Middleware(SameOrigin, hosts=settings.space_hosts), Middleware(Uploads, settings=settings)]
    if settings.host in LOOPBACK and not settings.space:
        found.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]))
    if not settings.space:
        found.append(Middleware(Unframed))
    if access.mode == "password":
        found.append(Middleware(SignIn, access=access))
    return found


class SameOrigin:
    """Refuses what another site's page sends here through a visitor's browser, with the visitor's cookies."""

    def __init__(self, app: App, hosts: Iterable[str] = ()) -> None:
        """`hosts` are names of this page besides the one that a request was sent to, which a proxy may have changed."""
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        asks = scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in SAFE)
        if asks and self._foreign(Headers(scope=scope)):
            await PlainTextResponse("Requests from other sites are refused.", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _foreign(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        known = {headers.get("host"), *self._hosts}
        return headers.get("sec-fetch-site") == "cross-site" or (
            origin is not None and origin.partition("://")[2] not in known
        )


class Uploads:
    """Bounds every body by its size, and uploads by how many come, and by the disk that Graft may use."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._rate = Rate(UPLOADS_A_MINUTE, UPLOADS_A_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413, 429 or 507."""
        if scope["type"] != "http" or scope["method"] in SAFE:
            await self._app(scope, receive, send)
            return
        upload = scope["path"].rstrip("/").endswith("/upload")
        call = max(LARGEST_CALL, BYTES_A_CHARACTER * self._settings.text_length)
        most = self._settings.upload_bytes + AROUND_FILES if upload else call
        if refusal := self._refusal(scope, upload, most):
            await refusal(scope, receive, send)
        else:
            await _Bounded(self._app, most)(scope, receive, send)

    def _refusal(self, scope: Scope, upload: bool, most: int) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            return PlainTextResponse(f"This is larger than {most // 2**20} MB.", 413)
        host = SimpleNamespace(host=(scope.get("client") or ("",))[0])
        key = address(SimpleNamespace(headers=headers, client=host), self._settings.space)
        if upload and (wait := self._rate.take(key)):
            return PlainTextResponse("Too many uploads.", 429, {"Retry-After": f"{wait:.0f}"})
        if upload and quota.is_full(self._settings):
            return PlainTextResponse("The disk that Graft may use is full (GRAFT_DISK_GB).", 507)
        return None


class _Bounded:
    """Ends a request whose body grows beyond what it may have, whatever its headers say."""

    def __init__(self, app: App, most: int) -> None:
        self._app, self._left, self._begun, self._over = app, most, False, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded() -> Any:  # noqa: ANN401 - a message of ASGI
            message = await receive()
            self._left -= len(message.get("body") or b"")
            if self._left < 0:
                self._over = True
                return {"type": "http.disconnect"}
            return message

        async def watched(message: Any) -> None:  # noqa: ANN401
            if not self._over:
                self._begun = True
                await send(message)

        try:
            await self._app(scope, bounded, watched)
        except Exception:
            if not self._over:
                raise
        if self._over and not self._begun:
            await PlainTextResponse("This is too large.", 413)(scope, receive, send)


class Unframed:
    """Forbids other sites to show this page inside theirs, where a click could be led to one of its buttons."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and the answer back with two more headers."""

        async def marked(message: Any) -> None:  # noqa: ANN401
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-frame-options", b"SAMEORIGIN"),
                                      (b"x-content-type-options", b"nosniff")]  # fmt: skip
            await send(message)

        await self._app(scope, receive, marked)
