"""Starts the server, with everything closed that a page on one's own machine does not need open."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse

from errors import GraftError
from settings import LOOPBACK, REPOSITORY, Settings
from store.corrections import FOLDER as CORRECTIONS
from store.database import DATABASE
from ui.context import Context
from ui.strings import translations
from ui.theme import STYLE, THEME

LEAST_DISK = 200 * 2**20
"""Bytes that must be free to start: a few versions and a run."""
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class SameOrigin:
    """Refuses what another site's page sends here through a visitor's browser. `strict_cors` hides only the answer."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS") and _foreign(scope):
            await PlainTextResponse("Requests from other sites are refused.", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _foreign(scope: Scope) -> bool:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    origin = headers.get("origin")
    return headers.get("sec-fetch-site") == "cross-site" or (
        origin is not None and origin.partition("://")[2] != headers.get("host")
    )


def check_home(settings: Settings) -> None:
    """Raise `GraftError` where nothing could be kept: the folder cannot be written, or the disk is full."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        probe = settings.home / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
        free = shutil.disk_usage(settings.home).free
    except OSError as error:
        what = f"{settings.home} cannot be written."
        raise GraftError(what, f"{error.strerror}.", "Set GRAFT_HOME to another folder.") from error
    if free < LEAST_DISK:
        raise GraftError("The disk is full.", f"{settings.home} has {free // 2**20} MB left.", "Free some space.")


def launch(demo: gr.Blocks, context: Context) -> None:
    """Serve until interrupted. Raises `GraftError` when the port is taken."""
    settings = context.settings
    try:
        demo.launch(**options(context), prevent_thread_lock=True)
    except OSError as error:
        what = f"Port {settings.port} on {settings.host} is taken."
        raise GraftError(what, "Another program listens there.", "Set GRAFT_PORT to another number.") from error
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    print(f"Graft is ready at http://{host}:{settings.port}", flush=True)
    context.load_models()
    demo.block_thread()


def options(context: Context) -> dict[str, Any]:
    """The arguments of `launch`."""
    settings = context.settings
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "share": False,
        "show_error": False,
        "quiet": True,
        "max_file_size": "50mb",
        "enable_monitoring": False,
        "run_history": False,
        "strict_cors": True,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "state_session_capacity": 1000,
        "footer_links": ["api", "settings"],
        "blocked_paths": [str(path) for path in _private(settings)],
        "app_kwargs": {"docs_url": None, "redoc_url": None, "openapi_url": None, "middleware": _middleware(settings)},
        "i18n": translations(context.plugins()),
        "theme": THEME,
        "css_paths": [STYLE],
    }


def _private(settings: Settings) -> list[Path]:
    """Folders whose files are never served, whatever Gradio thinks of them."""
    kept = [
        settings.home / name
        for name in ("adapters", "live", "runs", "models", "data", CORRECTIONS, DATABASE, f"{DATABASE}-wal")
    ]
    return [*kept, Path.home() / ".cache" / "huggingface", REPOSITORY / ".git", settings.plugins]


def _middleware(settings: Settings) -> list[Middleware]:
    """Off a Space, whose own proxy decides, only requests for this host and from its own pages."""
    if settings.space:
        return []
    guards = [Middleware(SameOrigin)]
    if settings.host in LOOPBACK:
        guards.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]))
    return guards


def stop(error: GraftError, code: int) -> None:
    """Say why in one line and end the process."""
    print(f"Graft cannot start. {error}", file=sys.stderr)
    sys.exit(code)
