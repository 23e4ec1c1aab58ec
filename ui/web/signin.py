"""Sign-in: the routes that check the owner's password and set a cookie, and the page's buttons and notices about it.

Scripts cannot read the cookie, and browsers do not send it with cross-site requests. Guesses are limited for each
address; a password has at least twelve characters (`Settings`), too many to be guessed at that rate.
Which handlers a user may call is decided in `access.py`.
"""

from __future__ import annotations

import logging
from urllib.parse import parse_qs

import gradio as gr
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

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
HEADERS = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;background:#faf9f6;color:#292825;display:grid;place-items:center;"
    "min-height:90vh;margin:0}form{display:grid;gap:12px;width:min(320px,90vw)}h1{margin:0;font-size:24px}"
    "input,button{font:inherit;padding:10px;border:1px solid #d2cec3;border-radius:8px}p{margin:0}"
    "button{background:#276641;color:#fff;border:0;cursor:pointer}a{color:#276641}"
    "@media(prefers-color-scheme:dark){body{background:#131211;color:#e6e3db}input{background:#1c1b19;color:inherit}}"
)


def place_account(context: Context, poll: PagePoll) -> None:
    """Place the sign-in button in the header."""
    if context.access.mode == "huggingface":
        gr.LoginButton(size="sm", elem_classes="g-account")
    if context.access.mode == "password":
        for label, others in ((t("signin.do"), True), (t("signin.owner"), False)):
            with poll.reserved(Action.KEEP, others):
                gr.Button(label, link="signin", link_target="_self", size="sm", elem_classes="g-account")


def place_notice(context: Context, poll: PagePoll) -> None:
    """Place a notice for visitors: why they see less than the owner, and how to become the owner."""
    if context.access.mode == "nobody":
        gr.Markdown(t("access.off_space" if context.settings.space else "access.off"), elem_classes="g-off")
    elif context.access.mode != "local":
        with poll.reserved(Action.KEEP, others=True):
            gr.Markdown(t("access.sign_in"), elem_classes="g-off")


class SignIn:
    """Handlers of the paths `/signin` and `/signout`."""

    def __init__(self, access: Access) -> None:
        self._access, self._guesses = access, RateLimiter(1, GUESSES)

    @property
    def routes(self) -> list[Route]:
        """Routes of signing in with a password; none where there is no password."""
        if self._access.mode != "password":
            return []
        return [
            Route("/signin", self._show),
            Route("/signin", self._sign_in, methods=["POST"]),
            Route("/signout", self._show),
            Route("/signout", self._sign_out, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        say = words(request)
        return _owner(say) if self._access.knows(cookie(request)) else _form(say)

    async def _sign_out(self, request: Request) -> Response:
        self._access.sign_out(cookie(request))
        answer = _home()
        answer.delete_cookie(COOKIE)
        return answer

    async def _sign_in(self, request: Request) -> Response:
        """Begin a session for the right password; show the form again for a wrong one."""
        say, key = words(request), address(request)
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
