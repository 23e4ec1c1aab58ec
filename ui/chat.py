"""What a conversation needs beyond asking: the message box empties on send, the last turn can be retried or undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from store.prompts import as_text
from ui.guard import kindly

QUIET: Mapping[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def connect(
    handler: Callable[..., Any], taken: Sequence[Component], page: gr.Chatbot, send: gr.Button,
    settings: Mapping[str, Any], api: Mapping[str, Any],
) -> list[Any]:  # fmt: skip
    """Connect a plugin whose first input is the message and which answers in `page`; returns the events to cancel."""
    message, *rest = taken
    asked = gr.Textbox(visible=False)
    inputs = [asked, *rest]
    # The message moves out of its box in the browser, before anything is sent, so that the box is free at once.
    sent = gr.on(
        [send.click, message.submit], None, message, [asked, message], js="(text) => [text, '']", **QUIET
    )
    answered = sent.then(handler, inputs, show_progress="minimal", **settings, **api)
    again = page.retry(kindly(retry), page, [asked, page], **QUIET)
    retried = again.then(handler, inputs, show_progress="minimal", **settings, api_visibility="private")
    page.undo(kindly(undo), page, [message, page], **QUIET)
    return [answered, retried]


def retry(history: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The last question, and the conversation before it."""
    last = max((i for i, turn in enumerate(history) if turn["role"] == "user"), default=0)
    return (as_text(history[last]["content"]), history[:last]) if history else ("", [])


def undo(history: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The same: what was asked goes back into the box."""
    return retry(history)
