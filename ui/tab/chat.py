"""What a conversation needs beyond asking: the message box empties on send, the last turn can be retried or undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from models.chat_template import as_text
from plugins import TaskPlugin
from ui.context import Context
from ui.pulse import QUIET
from ui.web.access import Action

CONCURRENCY = 160
"""Requests of one tab that are under way at once; the pool answers them together."""
COUNT = "(page) => (page || []).length"
SEND = "(text, page) => [text, '', (page || []).length]"
RESTORE = "(asked, typed, page, turns) => typed || ((page || []).length > turns ? typed : asked)"


@dataclass(frozen=True)
class Event:
    """One way to ask a tab, however it is triggered."""

    handler: Callable[..., Any]
    taken: Sequence[Component]
    shown: Sequence[Component]
    plugin: TaskPlugin

    @property
    def settings(self) -> dict[str, Any]:
        """How it runs, for an event listener of Gradio's."""
        return {
            "fn": self.handler,
            "outputs": list(self.shown),
            "concurrency_limit": CONCURRENCY,
            "concurrency_id": self.plugin.name,
            "show_progress": "minimal",
            "trigger_mode": "once",
        }

    @property
    def api(self) -> dict[str, Any]:
        """What makes it the tab's endpoint."""
        text = self.plugin.description
        return {"api_name": self.plugin.name, "api_description": text, "api_visibility": "public"}


def connect(context: Context, event: Event, page: gr.Chatbot, send: gr.Button) -> list[Any]:
    """Connect a plugin whose first input is the message and which answers in `page`; returns the events to cancel."""
    message, *rest = event.taken
    entered = [message.submit] if isinstance(message, gr.Textbox) else []
    asked, turns = gr.Textbox(visible=False), gr.Number(0, visible=False)
    inputs = [asked, *rest]
    # The message moves out of its box in the browser, before anything is sent, so that the box is free at once.
    sent = gr.on([send.click, *entered], None, [message, page], [asked, message, turns], js=SEND, **QUIET)
    # What is sent while an answer is being written is asked when that answer is complete.
    settings = event.settings | {"trigger_mode": "always_last"}
    answered = sent.then(inputs=inputs, **settings, **event.api)
    again = page.retry(context.allow(Action.LOOK, retry), page, [asked, page], **QUIET)
    again = again.then(None, page, turns, js=COUNT, **QUIET)
    retried = again.then(inputs=inputs, **settings, api_visibility="private")
    # What was not answered goes back into the box, unless it is in the conversation (an answer that was stopped, or
    # failed half way), or something else was typed meanwhile.
    for asking in (answered, retried):
        asking.failure(None, [asked, message, page, turns], message, js=RESTORE, **QUIET)
    page.undo(context.allow(Action.LOOK, undo), page, [message, page], **QUIET)
    return [answered, retried]


def retry(history: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The last question, and the conversation before it."""
    last = max((i for i, turn in enumerate(history) if turn["role"] == "user"), default=0)
    return (as_text(history[last]["content"]), history[:last]) if history else ("", [])


def undo(history: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """The same: what was asked goes back into the box."""
    return retry(history)
