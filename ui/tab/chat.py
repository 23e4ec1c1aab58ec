"""Events of a conversation: the message box is emptied on send, and the last turn can be retried or undone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from models.chat_template import as_text
from plugins import TaskPlugin
from ui.context import Context
from ui.pulse import QUIET
from ui.web.access import Action

CONCURRENCY = 160
"""Most requests of one tab that are answered at once, in batches."""
COUNT = "(page) => (page || []).length"
SEND = "(text, page) => [text, '', (page || []).length]"
RESTORE = "(asked, typed, page, turns) => typed || ((page || []).length > turns ? typed : asked)"
"""JavaScript of the events; `asked` is the message that was sent, `turns` the length of the conversation before it."""


def answering(plugin: TaskPlugin, handler: Callable[..., Any], outputs: Sequence[Component]) -> dict[str, Any]:
    """Return the arguments of the event listener that answers with a plugin, except its inputs and trigger."""
    return {
        "fn": handler,
        "outputs": list(outputs),
        "concurrency_limit": CONCURRENCY,
        "concurrency_id": plugin.name,
        "show_progress": "minimal",
        "trigger_mode": "once",
    }


def endpoint(plugin: TaskPlugin) -> dict[str, Any]:
    """Return the arguments that make an event the endpoint of a plugin."""
    return {"api_name": plugin.name, "api_description": plugin.description, "api_visibility": "public"}


def connect(
    context: Context,
    plugin: TaskPlugin,
    given: Sequence[Component],
    listener: Mapping[str, Any],
    conversation: gr.Chatbot,
    send: gr.Button,
) -> list[Any]:
    """Connect a conversation; returns the events that Stop cancels.

    The inputs are `given`, of which the first is the message; `listener` is as `answering` returns it.
    """
    message, *rest = given
    entered = [message.submit] if isinstance(message, gr.Textbox) else []
    asked, turns = gr.Textbox(visible=False), gr.Number(0, visible=False)
    inputs = [asked, *rest]
    # The browser empties the message box before it sends anything, so that the next message can be typed at once.
    sent = gr.on([send.click, *entered], None, [message, conversation], [asked, message, turns], js=SEND, **QUIET)
    # A message sent while an answer is written is asked when that answer is complete.
    settings = {**listener, "trigger_mode": "always_last"}
    answered = sent.then(inputs=inputs, **settings, **endpoint(plugin))
    again = conversation.retry(context.allow(Action.LOOK, retry), conversation, [asked, conversation], **QUIET)
    again = again.then(None, conversation, turns, js=COUNT, **QUIET)
    retried = again.then(inputs=inputs, **settings, api_visibility="private")
    # A message without an answer returns to the box, unless it is in the conversation (its answer was stopped or failed
    # half way) or another was typed meanwhile.
    for asking in (answered, retried):
        asking.failure(None, [asked, message, conversation, turns], message, js=RESTORE, **QUIET)
    conversation.undo(context.allow(Action.LOOK, retry), conversation, [message, conversation], **QUIET)
    return [answered, retried]


def retry(history: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
    """Return the last question, and the conversation before it."""
    last = max((i for i, turn in enumerate(history) if turn["role"] == "user"), default=0)
    return (as_text(history[last]["content"]), history[:last]) if history else ("", [])
