"""ASGI middleware before Gradio: refuses cross-site requests, limits the size of bodies, and forbids framing.

Gradio's `strict_cors` only hides the answers to cross-site requests, accepts any of them where the host is not a local
one, and lets uploads through, which a browser sends without a preflight request.
"""

from __future__ import annotations

from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from settings import LOOPBACK, Settings
from store import quota
from ui.web.access import RateLimiter, address

LARGEST_CALL = 16 * 2**20
"""Largest body of a request other than an upload, in bytes; larger where `GRAFT_TEXT_LENGTH` needs it."""
BYTES_A_CHARACTER = 12
"""Largest size of a character in JSON: two escapes of six bytes."""
FORM_OVERHEAD = 2**20
"""Bytes of an upload besides its files."""
UPLOADS_A_MINUTE = 20
SAFE = ("GET", "HEAD", "OPTIONS")


def middleware(settings: Settings) -> list[Middleware]:
    """Return the middleware of the page, outermost first.

    On loopback only this machine's own host names are accepted, against DNS rebinding. Elsewhere the host names in use
    are not known.
    """
    found = [Middleware(SameOrigin, hosts=settings.space_hosts), Middleware(Uploads, settings=settings)]
    if settings.host in LOOPBACK and not settings.space:
        found.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]))
    if not settings.space:
        found.append(Middleware(Unframed))
    return found


class SameOrigin:
    """Refuses cross-site requests, which a browser sends with the user's cookies."""

    def __init__(self, app: ASGIApp, hosts: Iterable[str] = ()) -> None:
        """`hosts` are the page's own names besides the Host header, which a proxy may have changed."""
        self._app, self._hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        unsafe = scope["type"] == "websocket" or (scope["type"] == "http" and scope["method"] not in SAFE)
        if unsafe and self._foreign(Headers(scope=scope)):
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
    """Limits the size of every body, and the rate and total size of uploads."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._rate = RateLimiter(UPLOADS_A_MINUTE, UPLOADS_A_MINUTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413, 429 or 507."""
        if scope["type"] != "http" or scope["method"] in SAFE:
            await self._app(scope, receive, send)
            return
        upload = scope["path"].rstrip("/").endswith("/upload")
        call = max(LARGEST_CALL, BYTES_A_CHARACTER * self._settings.text_length)
        most = self._settings.upload_bytes + FORM_OVERHEAD if upload else call
        if refusal := self._refusal(scope, upload, most):
            await refusal(scope, receive, send)
        else:
            await _call_bounded(self._app, most, scope, receive, send)

    def _refusal(self, scope: Scope, upload: bool, most: int) -> PlainTextResponse | None:
        request = HTTPConnection(scope)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            return PlainTextResponse(f"This is larger than {most // 2**20} MB.", 413)
        if upload and (wait := self._rate.take(address(request, self._settings.space))):
            return PlainTextResponse("Too many uploads.", 429, {"Retry-After": f"{wait:.0f}"})
        if upload and quota.is_full(self._settings):
            return PlainTextResponse("The disk that Graft may use is full (GRAFT_DISK_GB).", 507)
        return None


async def _call_bounded(app: ASGIApp, most: int, scope: Scope, receive: Receive, send: Send) -> None:
    """Call `app`; a body that grows beyond `most` bytes, whatever its headers say, ends as if the client had left.

    The answer is 413 unless another one has begun.
    """
    left, begun = most, False

    async def bounded() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body") or b"")
        return message if left >= 0 else {"type": "http.disconnect"}

    async def watched(message: Message) -> None:
        nonlocal begun
        if left >= 0:
            begun = True
            await send(message)

    try:
        await app(scope, bounded, watched)
    except Exception:
        if left >= 0:
            raise
    if left < 0 and not begun:
        await PlainTextResponse("This is too large.", 413)(scope, receive, send)


class Unframed:
    """Forbids other sites to show this page in a frame (clickjacking), and browsers to guess content types."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and add two headers to the answer."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = (b"x-frame-options", b"SAMEORIGIN"), (b"x-content-type-options", b"nosniff")
                message["headers"] = [*message["headers"], *ours]
            await send(message)

        await self._app(scope, receive, marked)
