"""Starts the web server, with all features of Gradio disabled that this page does not need."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import gradio as gr

from errors import GraftError
from settings import HOME_RECORD, REPOSITORY, Settings, check_release
from store import files
from store.corrections import FOLDER as CORRECTIONS
from ui.context import Context
from ui.html.theme import STYLE, THEME
from ui.i18n import translations
from ui.web.middleware import middleware
from ui.web.signin import SignIn

THREADS = 192
"""Threads of handlers; each pending answer holds one, and a tab has at most `chat.CONCURRENCY` of them."""
LEAST_DISK = 200 * 2**20
"""Bytes that must be free to start, for a few versions and a run."""


def check_home(settings: Settings) -> None:
    """Write this release into the home folder. Raises `GraftError` where it cannot be written, or the disk is full."""
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
        files.write_json(settings.home / HOME_RECORD, check_release(settings.home))
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
    """Return the arguments of `gr.Blocks.launch`."""
    settings = context.settings
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "share": False,
        "show_error": False,
        "quiet": True,
        "max_file_size": settings.upload_bytes,
        "enable_monitoring": False,
        "run_history": False,
        "strict_cors": True,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
        "state_session_capacity": 200,
        "max_threads": THREADS,
        "footer_links": ["api", "settings"],
        "blocked_paths": [str(path) for path in _private(settings)],
        "app_kwargs": {
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
            "middleware": middleware(settings),
            "routes": SignIn(context.access).routes,
        },
        "i18n": translations(context.plugins()),
        "theme": THEME,
        "css_paths": [STYLE],
    }


def _private(settings: Settings) -> list[Path]:
    """Return paths that Gradio must not serve files from."""
    kept = [settings.home / name for name in ("adapters", "live", "runs", "models", "data", CORRECTIONS, "graft.db")]
    return [*kept, Path.home() / ".cache" / "huggingface", REPOSITORY / ".git", settings.plugins]


def stop(error: GraftError, code: int) -> None:
    """Print an error on one line and exit with `code`."""
    print(f"Graft cannot start. {error}", file=sys.stderr)
    sys.exit(code)
