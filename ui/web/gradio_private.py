"""Undocumented interfaces of Gradio, which no other module of the page uses.

Gradio may change any of them in a new version; `tests/ui/web/test_gradio_private.py` then fails.

| interface | used for |
|---|---|
| `LocalContext.request` | the language of sentences made in plugins and threads |
| `Context.id`, `BlocksConfig.fn_id` | ids of components and events that a change of another tab does not move |
| `get_api_info`, `api_info` | English descriptions and schemas for API clients |
| `default_config`, `state_holder`, `reassign_pending_event_fns` | replacing the served page while requests run |
| `get_upload_folder`, `save_bytes_to_cache` | files for download, which Gradio serves and deletes |
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.context import Context, LocalContext
from gradio.i18n import I18nData
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder, reassign_pending_event_fns

__all__ = ["I18nData"]


def current_request() -> gr.Request | None:
    """Return the request whose handler runs in this context, or None outside of handlers."""
    return LocalContext.request.get(None)


def begin_ids(number: int, demo: gr.Blocks | None = None, events: int = 0) -> None:
    """Number the components made from now on from `number`, and the events of `demo` from `events`."""
    Context.id = number
    if demo:
        demo.default_config.fn_id = events


def describe_api(demo: gr.Blocks, change: Callable[[Any], Any]) -> None:
    """Apply `change` to the description of the page's API that clients read."""
    described = demo.get_api_info
    # Replaced on the instance: Gradio writes a .pyi file beside the source of every subclass.
    demo.get_api_info = lambda *a, **k: change(described(*a, **k))  # type: ignore[method-assign]


def describe(component: Component, schema: Mapping[str, Any]) -> None:
    """Set the JSON schema of a component's value in the API."""
    component.api_info = lambda: schema  # type: ignore[method-assign, assignment, return-value]


def layout(page: gr.Blocks) -> str:
    """Return a text that differs between two pages where an open page or an API client would notice.

    It has the components, the events, and the parameters of each `predict`, which handlers carry as `predicts`.
    """
    config = page.get_config_file()
    known = {key: config[key] for key in ("components", "layout", "dependencies")}
    predicts = [getattr(function.fn, "predicts", None) for function in page.fns.values()]
    return json.dumps([known, predicts], default=str)


def exchange(page: gr.Blocks, fresh: gr.Blocks, i18n: gr.I18n) -> None:
    """Replace the content of the served `page` by that of `fresh`; running requests finish with the old code."""
    app = page.app
    for child in fresh.children:
        child.parent = page
    fresh.default_config.root_block = page
    page.children, page.default_config = fresh.children, fresh.default_config
    page.get_api_info = fresh.get_api_info  # type: ignore[method-assign]
    page.app_id, page.i18n_instance = fresh.app_id, i18n
    page.config = page.get_config_file()
    app.api_info = app.all_app_info = None
    for session in app.state_holder.session_data.values():
        session.blocks_config = copy.copy(page.default_config)
    reassign_pending_event_fns(page)


def cache_folder() -> Path:
    """Return the folder of files that Gradio serves for download and deletes after a day."""
    return Path(get_upload_folder())


def cache_file(content: bytes, name: str) -> str:
    """Write a file below `cache_folder()` and return its path."""
    path: str = save_bytes_to_cache(content, name, get_upload_folder())
    return path
