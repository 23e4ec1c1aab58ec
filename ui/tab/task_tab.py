"""One plugin's tab: its inputs and outputs, the choice of version, what answered, and the API endpoint of its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import PluginError
from plugins import TaskPlugin
from settings import Settings
from store.adapters import BASE, LIVE
from ui.context import Context
from ui.i18n import t
from ui.pulse import QUIET, LiveView, PagePoll
from ui.tab import chat, compare
from ui.tab.answer import ADAPTER_SCHEMA, answers, choices_of, described, fill
from ui.tab.badge import make_badge
from ui.tab.chat import Event
from ui.tab.correct import Correct
from ui.tab.pending_answer import PendingAnswer, follow
from ui.web.access import Action

EXAMPLE_LENGTH = 70


@dataclass(frozen=True)
class Parts:
    """A plugin's components, made but not yet placed on a page."""

    inputs: Sequence[Component]
    options: Sequence[Component]
    outputs: Sequence[Component]
    parameters: Sequence[inspect.Parameter]
    """The arguments of `predict` behind `lm`, one for each input and option."""
    compared: Sequence[Sequence[Component]]
    """The outputs once more for each version that is compared; none for a plugin that brings its own module."""


Placed = tuple[gr.Dropdown, gr.Button, gr.Button, gr.HTML, Correct | None]
"""The adapter menu, the button that sends, the one that stops, the badge, and what corrects where there is any."""
Below = Callable[[], Correct | None]
"""Places what stands below an answer."""


def make_parts(plugin: TaskPlugin) -> Parts:
    """Ask a plugin for its components, outside any page: one that fails must not spoil it. Raises `PluginError`."""
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
    """The outputs of another instance: a component that is an input too, as a conversation, is made by `inputs()`."""
    other = type(plugin)()
    other.inputs()
    return list(other.outputs())


def build(context: Context, plugin: TaskPlugin, parts: Parts, pulse: PagePoll) -> None:
    """Place a tab's components and connect them."""
    _lengthen(parts, context.settings.new_tokens)
    gr.Markdown(plugin.say(plugin.description), elem_classes="g-about")
    page = next((c for c in parts.outputs if isinstance(c, gr.Chatbot) and c in parts.inputs), None)
    place = _place_chat if page else _place_form
    teachable = context.access.possible and context.spec(plugin.name).learns
    adapter, send, stop, badge, correct = place(
        context, plugin, parts, lambda: _reserved(context, plugin, pulse) if teachable else None
    )
    kept = [correct.asked] if correct else []
    handler = context.allow(Action.ASK, answer(context, plugin, parts, keeps=bool(kept)))
    event = Event(handler, [*parts.inputs, *parts.options, adapter], [*parts.outputs, badge, *kept], plugin)
    if page and correct:
        correct.forget_with(page)
    if page:
        events = chat.connect(context, event, page, send)
    else:
        first = parts.inputs[0]
        submit = [first.submit] if isinstance(first, gr.Textbox) and first.lines == 1 else []
        events = [gr.on([send.click, *submit], inputs=event.taken, **event.settings, **event.api)]
    stop.click(None, cancels=events, api_visibility="private")
    pulse.add(LiveView([adapter], [adapter], lambda say, _: context.changes, choices_of(context, plugin.name)))
    if parts.compared:
        given = [*parts.inputs, *parts.options]
        compare.build(context, plugin, compare.Asked(given, parts.parameters, page), parts.compared, pulse)


def _lengthen(parts: Parts, most: int) -> None:
    """Let a slider of an answer's length reach `most` tokens where that is not the default.

    Gradio refuses what is beyond a slider, on the page and in the API.
    """
    if most == Settings.new_tokens:
        return
    for parameter, component in zip(parts.parameters, [*parts.inputs, *parts.options], strict=True):
        if parameter.name == "max_new_tokens" and isinstance(component, gr.Slider):
            component.maximum = max(component.maximum, most)


def _reserved(context: Context, plugin: TaskPlugin, pulse: PagePoll) -> Correct:
    """What corrects, for those who may."""
    with pulse.reserved(Action.CORRECT):
        return Correct(context, plugin, pulse)


def answer(context: Context, plugin: TaskPlugin, parts: Parts, keeps: bool) -> Callable[..., Any]:
    """The handler of a tab, with the signature that its API shows: the arguments of `predict`, and `adapter`.

    `keeps` says whether what was asked is given last, for a correction.
    """
    name, width, cut = plugin.name, len(parts.outputs), None if keeps else -1

    def stream(*values: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - whatever the components hold
        *given, adapter = values
        asking = PendingAnswer(adapter or LIVE, fill(parts.parameters, given), [gr.skip()] * width)
        for _ in follow(context, name, [asking]):
            if asking.told:
                yield [*asking.outputs, asking.told, asking.kept][:cut]
        if asking.error:
            raise asking.error

    def once(*values: Any) -> list[Any]:  # noqa: ANN401
        *given, adapter = values
        return list(answers(context, name, fill(parts.parameters, given), adapter or LIVE))[-1][:cut]

    return described(stream if plugin.streams() else once, parts.parameters, "adapter")


def _place_form(context: Context, plugin: TaskPlugin, parts: Parts, below: Below) -> Placed:
    """What is asked on the left, what is answered on the right; on a phone one below the other."""
    with gr.Row(elem_classes="g-columns"):
        with gr.Column(elem_classes="g-ask"):
            _place(parts.inputs)
            adapter = _adapter(plugin)
            _options(parts)
            send, stop = _buttons(plugin, "task.send")
            _examples(context, plugin, parts)
        with gr.Column(elem_classes="g-answer"):
            _place(parts.outputs)
            badge = make_badge()
            correct = below()
    return adapter, send, stop, badge, correct


def _place_chat(context: Context, plugin: TaskPlugin, parts: Parts, below: Below) -> Placed:
    """The conversation with the message box under it; what answers, and how, at its side."""
    with gr.Row(elem_classes="g-columns"):
        with gr.Column(elem_classes="g-chat-main", scale=5):
            _place(parts.outputs)
            badge = make_badge()
            correct = below()
            _place([c for c in parts.inputs if c not in parts.outputs])
            send, stop = _buttons(plugin, "chat.send")
            _examples(context, plugin, parts)
        with gr.Column(elem_classes="g-chat-side", scale=3):
            adapter = _adapter(plugin)
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


def _adapter(plugin: TaskPlugin) -> gr.Dropdown:
    # What can answer comes with the first beat of each page; a page's layout does not depend on the versions.
    chosen = gr.Dropdown(
        [LIVE, BASE], value=LIVE, label=t("task.adapter"), allow_custom_value=True,
        visible=not plugin.brings_own(), interactive=True, elem_classes="g-adapter",
    )  # fmt: skip
    chosen.api_info = lambda: ADAPTER_SCHEMA  # type: ignore[method-assign]
    return chosen


def _examples(context: Context, plugin: TaskPlugin, parts: Parts) -> None:
    """Examples to click; each is shown by its first value."""
    if not plugin.examples:
        return
    fields = [c for c in parts.inputs if c not in parts.outputs][: len(plugin.examples[0])]
    labels = [_clipped(str(row[0])) for row in plugin.examples]
    rows = [list(row) for row in plugin.examples]
    samples = gr.Dataset(
        components=fields, samples=rows, sample_labels=labels, label=t("task.examples"), layout="gallery", type="index",
        elem_classes="g-examples",
    )  # fmt: skip

    def fill(index: int) -> Any:  # noqa: ANN401 - one value, or a list of them
        return rows[index] if len(fields) > 1 else rows[index][0]

    samples.click(context.allow(Action.LOOK, fill), samples, fields, **QUIET)


def _clipped(text: str) -> str:
    return text if len(text) <= EXAMPLE_LENGTH else text[: EXAMPLE_LENGTH - 1].rstrip() + "…"


def _place(components: Iterator[Component] | Sequence[Component]) -> None:
    for component in components:
        component.render()  # type: ignore[no-untyped-call]
