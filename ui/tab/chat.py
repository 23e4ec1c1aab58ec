"""Events of a conversation: the message box empties on send, and the last turn can be retried or undone."""

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
"""Most requests of one tab at once; the pool answers them together."""
COUNT = "(page) => (page || []).length"
SEND = "(text, page) => [text, '', (page || []).length]"
RESTORE = "(asked, typed, page, turns) => typed || ((page || []).length > turns ? typed : asked)"


@dataclass(frozen=True)
class Event:
    """The event that asks a tab, before it has a trigger."""

    handler: Callable[..., Any]
    inputs: Sequence[Component]
    outputs: Sequence[Component]
    plugin: TaskPlugin

    @property
    def settings(self) -> dict[str, Any]:
        """Return the arguments of a Gradio event listener, but for its inputs."""
        return {
            "fn": self.handler,
            "outputs": list(self.outputs),
            "concurrency_limit": CONCURRENCY,
            "concurrency_id": self.plugin.name,
            "show_progress": "minimal",
            "trigger_mode": "once",
        }

    @property
    def api(self) -> dict[str, Any]:
        """Return the arguments that make it the tab's endpoint."""
        text = self.plugin.description
        return {"api_name": self.plugin.name, "api_description": text, "api_visibility": "public"}


def connect(context: Context, event: Event, page: gr.Chatbot, send: gr.Button) -> list[Any]:
    """Connect a plugin whose first input is the message and whose output is `page`; return the events to cancel."""
    message, *rest = event.inputs
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
    page.undo(context.allow(Action.LOOK, retry), page, [message, page], **QUIET)
    return [answered, retried]


def retry(history: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Return the last question, and the conversation before it."""
    last = max((i for i, turn in enumerate(history) if turn["role"] == "user"), default=0)
    return (as_text(history[last]["content"]), history[:last]) if history else ("", [])
