"""One plugin's tab: its inputs and outputs, the menu of versions, the badge, and the API endpoint of its name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import PluginError
from plugins import TaskPlugin
from settings import Settings
from store.adapters import LIVE
from ui.context import Context
from ui.html.format import short
from ui.i18n import t
from ui.pulse import QUIET, LiveView, PagePoll
from ui.tab import chat, compare
from ui.tab.answer import choices_of, handler_of, version_menu
from ui.tab.badge import make_badge
from ui.tab.correct import Correct
from ui.web.access import Action

EXAMPLE_LENGTH = 70


@dataclass(frozen=True)
class Parts:
    """The components of a plugin, not yet placed on a page."""

    inputs: Sequence[Component]
    options: Sequence[Component]
    outputs: Sequence[Component]
    parameters: Sequence[inspect.Parameter]
    """The arguments of `predict` behind `lm`, one for each input and option."""
    compared: Sequence[Sequence[Component]]
    """Outputs for each column of a comparison; none for a plugin that brings its own module."""

    @property
    def given(self) -> list[Component]:
        """Components of the arguments of `predict`, in order."""
        return [*self.inputs, *self.options]

    @property
    def conversation(self) -> gr.Chatbot | None:
        """Conversation, which is an input and an output, if there is one."""
        return next((c for c in self.outputs if isinstance(c, gr.Chatbot) and c in self.inputs), None)


Placed = tuple[gr.Dropdown, gr.Button, gr.Button, gr.HTML, Correct | None]
"""The menu of versions, the buttons Send and Stop, the badge, and the correction form, if there is one."""


def make_parts(plugin: TaskPlugin) -> Parts:
    """Make the components of a plugin, outside of any page. Raises `PluginError` where that fails."""
    try:
        inputs, options, outputs = list(plugin.inputs()), list(plugin.options()), list(plugin.outputs())
        compared = [] if plugin.brings_own() else [_outputs_again(plugin) for _ in compare.DEFAULTS]
    except Exception as error:
        what = f"The components of {plugin.name} cannot be made."
        raise PluginError(what, f"{type(error).__name__}: {error}.") from error
    parameters = list(inspect.signature(plugin.predict).parameters.values())[1:]
    if len(parameters) != len(inputs) + len(options) or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise PluginError(
            f"predict() of {plugin.name} does not fit its components.",
            f"It takes {len(parameters)} values after lm; inputs() and options() give {len(inputs) + len(options)}.",
            "Give it one argument for each of them.",
        )
    return Parts(inputs, options, outputs, parameters, compared)


def _outputs_again(plugin: TaskPlugin) -> list[Component]:
    """Make outputs once more, by another instance of the plugin."""
    other = type(plugin)()
    other.inputs()  # it may make an output too, as of a conversation
    return list(other.outputs())


def build(context: Context, plugin: TaskPlugin, parts: Parts, poll: PagePoll) -> None:
    """Place a tab's components and connect them."""
    _lengthen(parts, context.settings.new_tokens)
    gr.Markdown(plugin.say(plugin.description), elem_classes="g-about")
    conversation = parts.conversation
    place = _place_chat if conversation else _place_form
    adapter, send, stop, badge, correct = place(context, plugin, parts, poll)
    kept = [correct.asked] if correct else []
    handler = context.allow(Action.ASK, handler_of(context, plugin, parts.parameters, len(parts.outputs), bool(kept)))
    inputs = [*parts.given, adapter]
    listener = chat.answering(plugin, handler, [*parts.outputs, badge, *kept])
    if conversation and correct:
        correct.forget_with(conversation)
    if conversation:
        events = chat.connect(context, plugin, inputs, listener, conversation, send)
    else:
        first = parts.inputs[0]
        submit = [first.submit] if isinstance(first, gr.Textbox) and first.lines == 1 else []
        events = [gr.on([send.click, *submit], inputs=inputs, **listener, **chat.endpoint(plugin))]
    stop.click(None, cancels=events, api_visibility="private")
    poll.add(LiveView([adapter], [adapter], lambda say, _: context.changes, choices_of(context, plugin.name)))
    if parts.compared:
        compare.build(context, plugin, parts, poll)


def _lengthen(parts: Parts, most: int) -> None:
    """Extend the slider of `max_new_tokens` to `most` where that setting is not the default.

    Gradio refuses values beyond a slider, from the page and from API clients.
    """
    if most == Settings.new_tokens:
        return
    for parameter, component in zip(parts.parameters, parts.given, strict=True):
        if parameter.name == "max_new_tokens" and isinstance(component, gr.Slider):
            component.maximum = max(component.maximum, most)


def _correct(context: Context, plugin: TaskPlugin, poll: PagePoll) -> Correct | None:
    """Place the correction form for users who may correct, if the tab learns and there can be an owner."""
    if not (context.access.possible and context.spec(plugin.name).learns):
        return None
    with poll.reserved(Action.CORRECT):
        return Correct(context, plugin, poll)


def _place_form(context: Context, plugin: TaskPlugin, parts: Parts, poll: PagePoll) -> Placed:
    """Place inputs on the left and outputs on the right; on a phone one below the other."""
    with gr.Row(elem_classes="g-columns"):
        with gr.Column(elem_classes="g-ask"):
            _place(parts.inputs)
            adapter = version_menu(LIVE, "task.adapter", visible=not plugin.brings_own(), elem_classes="g-adapter")
            _options(parts)
            send, stop = _buttons(plugin, "task.send")
            _examples(context, plugin, parts)
        with gr.Column(elem_classes="g-answer"):
            _place(parts.outputs)
            badge = make_badge()
            correct = _correct(context, plugin, poll)
    return adapter, send, stop, badge, correct


def _place_chat(context: Context, plugin: TaskPlugin, parts: Parts, poll: PagePoll) -> Placed:
    """Place the conversation with the message box under it, and the menu and options beside it."""
    with gr.Row(elem_classes="g-columns"):
        with gr.Column(elem_classes="g-chat-main", scale=5):
            _place(parts.outputs)
            badge = make_badge()
            correct = _correct(context, plugin, poll)
            _place([c for c in parts.inputs if c not in parts.outputs])
            send, stop = _buttons(plugin, "chat.send")
            _examples(context, plugin, parts)
        with gr.Column(elem_classes="g-chat-side", scale=3):
            adapter = version_menu(LIVE, "task.adapter", visible=not plugin.brings_own(), elem_classes="g-adapter")
            _options(parts)
    return adapter, send, stop, badge, correct


def _buttons(plugin: TaskPlugin, sends: str) -> tuple[gr.Button, gr.Button]:
    with gr.Row(elem_classes="g-buttons"):
        send = gr.Button(t(sends), variant="primary", scale=3)
        stop = gr.Button(t("task.stop"), scale=1, visible=plugin.streams())
    return send, stop


def _options(parts: Parts) -> None:
    if parts.options:
        with gr.Accordion(t("task.options"), open=False):
            _place(parts.options)


def _examples(context: Context, plugin: TaskPlugin, parts: Parts) -> None:
    """Place the examples as buttons, labelled with their first values."""
    if not plugin.examples:
        return
    fields = [c for c in parts.inputs if c not in parts.outputs][: len(plugin.examples[0])]
    labels = [short(row[0], EXAMPLE_LENGTH) for row in plugin.examples]
    rows = [list(row) for row in plugin.examples]
    samples = gr.Dataset(
        components=fields,
        samples=rows,
        sample_labels=labels,
        label=t("task.examples"),
        layout="gallery",
        type="index",
        elem_classes="g-examples",
    )

    def fill(index: int) -> Any:  # noqa: ANN401 - one value, or a list of them
        return rows[index] if len(fields) > 1 else rows[index][0]

    samples.click(context.allow(Action.LOOK, fill), samples, fields, **QUIET)


def _place(components: Sequence[Component]) -> None:
    for component in components:
        component.render()  # type: ignore[no-untyped-call]
