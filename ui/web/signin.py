"""Sign-in: the page that asks for the owner's password and sets a cookie, and what other pages show of it.

The cookie goes to this page alone, never to scripts and never with requests of other sites. Guesses are counted by
address; a password has at least twelve characters (`Settings`), so that the guesses let through find nothing.
Buttons and notices are only shown here; what is allowed, `access.py` decides.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ui.context import Context
from ui.html.tags import Html, tag
from ui.i18n import Words, t, words
from ui.pulse import PagePoll
from ui.web.access import COOKIE, SESSION_S, Access, Action, RateLimiter, address, cookie

log = logging.getLogger("graft")

GUESSES = 5
"""Wrong passwords from one address at once; then one a minute."""
LONGEST_FORM = 4096
POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;background:#faf9f6;color:#292825;display:grid;place-items:center;"
    "min-height:90vh;margin:0}form{display:grid;gap:12px;width:min(320px,90vw)}h1{margin:0;font-size:24px}"
    "input,button{font:inherit;padding:10px;border:1px solid #d2cec3;border-radius:8px}p{margin:0}"
    "button{background:#276641;color:#fff;border:0;cursor:pointer}a{color:#276641}"
    "@media(prefers-color-scheme:dark){body{background:#131211;color:#e6e3db}input{background:#1c1b19;color:inherit}}"
)


def place_account(context: Context, pulse: PagePoll) -> None:
    """Place the sign-in button in the header."""
    if context.access.mode == "huggingface":
        gr.LoginButton(size="sm", elem_classes="g-account")
    if context.access.mode == "password":
        for label, others in ((t("signin.do"), True), (t("signin.owner"), False)):
            with pulse.reserved(Action.KEEP, others):
                gr.Button(label, link="signin", link_target="_self", size="sm", elem_classes="g-account")


def place_notice(context: Context, pulse: PagePoll) -> None:
    """Place the reason why a visitor sees less than the owner, and what would change that."""
    if context.access.mode == "nobody":
        gr.Markdown(t("access.off_space" if context.settings.space else "access.off"), elem_classes="g-off")
    elif context.access.mode != "local":
        with pulse.reserved(Action.KEEP, others=True):
            gr.Markdown(t("access.sign_in"), elem_classes="g-off")


class SignIn:
    """ASGI middleware that answers `/signin` and `/signout`."""

    def __init__(self, app: Any, access: Access) -> None:  # noqa: ANN401 - an ASGI application
        self._app, self._access, self._guesses = app, access, RateLimiter(1, GUESSES)

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Answer these two paths, or pass the request on."""
        path = scope["path"].rstrip("/") if scope["type"] == "http" else ""
        if not path.endswith(("/signin", "/signout")) or path.count("/") != 1:
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        if path == "/signout" and request.method == "POST":
            self._access.sign_out(cookie(request))
            answer: Response = _home()
            answer.delete_cookie(COOKIE)
        elif path == "/signin" and request.method == "POST":
            answer = await self._try(request)
        else:
            say = words(request)  # type: ignore[arg-type]
            answer = _owner(say) if self._access.knows(cookie(request)) else _form(say)
        await answer(scope, receive, send)

    async def _try(self, request: Request) -> Response:
        """Check a password that was sent: begin a session, or show the form again."""
        say, key = words(request), address(request)  # type: ignore[arg-type]
        if wait := self._guesses.take(key):
            return _form(say, say("signin.wait", n=f"{wait:.0f}"), 429)
        given = (await _fields(request)).get("password", [""])[0]
        token = self._access.sign_in(given)
        if token is None:
            log.warning("A wrong password came from %s.", key)
            return _form(say, say("signin.wrong"), 403)
        self._guesses.give(key)
        answer = _home()
        secure = request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"
        answer.set_cookie(COOKIE, token, SESSION_S, httponly=True, samesite="strict", secure=secure)
        return answer


async def _fields(request: Request) -> dict[str, list[str]]:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_FORM:
            return {}
    return parse_qs(body.decode("utf-8", "replace"))


def _home() -> RedirectResponse:
    return RedirectResponse("./", 303, HEADERS)


def _form(say: Words, problem: str = "", status: int = 200) -> HTMLResponse:
    named: dict[str, object] = {"id": "password", "name": "password", "type": "password", "required": "required"}
    field = tag("input", **named, autocomplete="current-password", autofocus="autofocus")
    said = tag("p", problem, role="alert") if problem else None
    label = tag("label", say("signin.password"), for_="password")
    return _page(say, "signin", status, label, field, said, tag("button", say("signin.do"), type="submit"))


def _owner(say: Words) -> HTMLResponse:
    return _page(say, "signout", 200, tag("button", say("signin.out"), type="submit"))


def _page(say: Words, action: str, status: int, *children: Html | None) -> HTMLResponse:
    back = tag("p", tag("a", say("signin.back"), href="./"))
    form = tag("form", tag("h1", "Graft"), *children, back, method="post", action=action)
    metas = tag("meta", charset="utf-8"), tag("meta", name="viewport", content="width=device-width, initial-scale=1")
    head = tag("head", *metas, tag("title", "Graft"), tag("style", Html(STYLE)))
    return HTMLResponse(f"<!doctype html>{tag('html', head, tag('body', form), lang=say.language)}", status, HEADERS)
