"""One plugin's tab: its inputs and outputs, the choice of version, what answered, and the API endpoint of its name."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import AdapterError, PluginError
from plugins import OwnModel, TaskPlugin
from store.adapters import BASE, LIVE
from ui import chat
from ui.badge import make_badge
from ui.chat import Event
from ui.context import Context, own_key
from ui.correct import Correct, record
from ui.guard import kindly
from ui.pulse import QUIET, Follower, Pulse
from ui.strings import Words, t
from ui.train_on import label

EXAMPLE_LENGTH = 70
ADAPTER_SCHEMA = {"type": "string", "additional_description": "live, base, a name, or a version such as name@7"}


@dataclass(frozen=True)
class Parts:
    """A plugin's components, made but not yet placed on a page."""

    inputs: Sequence[Component]
    options: Sequence[Component]
    outputs: Sequence[Component]
    parameters: Sequence[inspect.Parameter]
    """The arguments of `predict` behind `lm`, one for each input and option."""


Placed = tuple[gr.Dropdown, gr.Button, gr.Button, gr.HTML, Correct | None]
"""The adapter menu, the button that sends, the one that stops, the badge, and what corrects where there is any."""
Below = Callable[[], Correct | None]
"""Places what stands below an answer."""


def make_parts(plugin: TaskPlugin) -> Parts:
    """Ask a plugin for its components, outside any page: one that fails must not spoil it. Raises `PluginError`."""
    try:
        inputs, options, outputs = list(plugin.inputs()), list(plugin.options()), list(plugin.outputs())
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
    return Parts(inputs, options, outputs, parameters)


def build(context: Context, plugin: TaskPlugin, parts: Parts, pulse: Pulse) -> None:
    """Place a tab's components and connect them."""
    gr.Markdown(plugin.say(plugin.description), elem_classes="g-about")
    page = next((c for c in parts.outputs if isinstance(c, gr.Chatbot) and c in parts.inputs), None)
    place = _place_chat if page else _place_form
    teachable = context.settings.may_train and context.spec(plugin.name).learns
    adapter, send, stop, badge, correct = place(
        plugin, parts, lambda: Correct(context, plugin, pulse) if teachable else None
    )
    kept = [correct.asked] if correct else []
    handler = kindly(answer(context, plugin.name, parts.parameters, plugin.streams(), keeps=bool(kept)))
    event = Event(handler, [*parts.inputs, *parts.options, adapter], [*parts.outputs, badge, *kept], plugin)
    if page and correct:
        correct.forget_with(page)
    if page:
        events = chat.connect(event, page, send)
    else:
        first = parts.inputs[0]
        submit = [first.submit] if isinstance(first, gr.Textbox) and first.lines == 1 else []
        events = [gr.on([send.click, *submit], inputs=event.taken, **event.settings, **event.api)]
    stop.click(None, cancels=events, api_visibility="private")
    pulse.add(Follower([adapter], [adapter], lambda say, _: context.changes, choices_of(context, plugin.name)))


def _place_form(plugin: TaskPlugin, parts: Parts, below: Below) -> Placed:
    """What is asked on the left, what is answered on the right; on a phone one below the other."""
    with gr.Row(elem_classes="g-columns"):
        with gr.Column(elem_classes="g-ask"):
            _place(parts.inputs)
            adapter = _adapter(plugin)
            _options(parts)
            send, stop = _buttons(plugin, "task.send")
            _examples(plugin, parts)
        with gr.Column(elem_classes="g-answer"):
            _place(parts.outputs)
            badge = make_badge()
            correct = below()
    return adapter, send, stop, badge, correct


def _place_chat(plugin: TaskPlugin, parts: Parts, below: Below) -> Placed:
    """The conversation with the message box under it; what answers, and how, at its side."""
    with gr.Row(elem_classes="g-columns"):
        with gr.Column(elem_classes="g-chat-main", scale=5):
            _place(parts.outputs)
            badge = make_badge()
            correct = below()
            _place([c for c in parts.inputs if c not in parts.outputs])
            send, stop = _buttons(plugin, "chat.send")
            _examples(plugin, parts)
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


def answer(
    context: Context, name: str, parameters: Sequence[inspect.Parameter], streams: bool, keeps: bool = False
) -> Callable[..., Any]:
    """The handler of a tab, with the signature that its API shows: the arguments of `predict`, and `adapter`.

    `keeps` says whether what was asked is given last, for a correction.
    """

    def stream(*values: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - whatever the components hold
        yield from _answers(context, name, parameters, values, keeps)

    def once(*values: Any) -> list[Any]:  # noqa: ANN401
        return list(_answers(context, name, parameters, values, keeps))[-1]

    handler: Callable[..., Any] = stream if streams else once
    # Every argument can be left out by an API caller; what is None then gets predict's own default.
    names = [*(p.name for p in parameters), "adapter"]
    shown = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for n in names]
    handler.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    handler.__annotations__ = {}
    handler.predicts = [str(p) for p in parameters]  # type: ignore[attr-defined]
    return handler


def choices_of(context: Context, name: str) -> Callable[[Words, str | None], list[Any]]:
    """Gives the adapter menu its choices as they are now."""

    def choices(say: Words, chosen: str | None) -> list[Any]:
        found = menu(context, name, say)
        known = chosen in {value for _, value in found}
        return [gr.update(choices=found, value=chosen if known else LIVE)]

    return choices


def menu(context: Context, name: str, say: Words) -> list[tuple[str, str]]:
    """What can answer in a tab: live, which says what it is now, the base, and each version."""
    live = context.adapters.live(name)
    own = context.spec(name).model
    versions = [(label(v, own), v.ref) for v in context.adapters.versions(name)]
    return [
        (say("task.live", version=label(live, own) if live else say("task.base")), LIVE),
        (say("task.base"), BASE),
        *versions,
    ]


def _answers(
    context: Context, name: str, parameters: Sequence[inspect.Parameter], values: Sequence[Any], keeps: bool
) -> Iterator[list[Any]]:
    start = time.monotonic()
    context.load_models()
    plugin = context.plugin(name)
    *given, adapter = values
    filled = {
        p.name: value for p, value in zip(parameters, given, strict=True) if value is not None or p.default is p.empty
    }
    with _bound(context, plugin, adapter or LIVE) as lm:
        result = plugin.predict(lm, **filled)
        for value in result if inspect.isgenerator(result) else [result]:
            outputs = list(value) if isinstance(value, tuple) else [value]
            milliseconds = round(1000 * (time.monotonic() - start))
            badge = {"version": lm.version, "base": lm.base, "ms": milliseconds, "notes": list(lm.notes)}
            yield [*outputs, badge, *([record(lm, outputs, filled)] if keeps else [])]


@contextmanager
def _bound(context: Context, plugin: TaskPlugin, adapter: str) -> Iterator[Any]:
    """What `predict` receives: an LM of the pool, or the plugin's own module."""
    if plugin.brings_own():
        yield OwnModel(context.pool.own(own_key(plugin)), plugin.title)
        return
    spec = context.spec(plugin.name)
    if adapter not in (LIVE, BASE) and (version := context.adapters.get(adapter)).plugin != spec.name:
        raise AdapterError(f"{version.ref} is not a version of {spec.name}.", f"It was made for {version.plugin}.")
    with context.pool.open(spec, adapter) as lm:
        yield lm


def _adapter(plugin: TaskPlugin) -> gr.Dropdown:
    # What can answer comes with the first beat of each page; a page's layout does not depend on the versions.
    chosen = gr.Dropdown(
        [LIVE, BASE], value=LIVE, label=t("task.adapter"), allow_custom_value=True,
        visible=not plugin.brings_own(), interactive=True, elem_classes="g-adapter",
    )  # fmt: skip
    chosen.api_info = lambda: ADAPTER_SCHEMA  # type: ignore[method-assign]
    return chosen


def _examples(plugin: TaskPlugin, parts: Parts) -> None:
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

    samples.click(kindly(fill), samples, fields, **QUIET)


def _clipped(text: str) -> str:
    return text if len(text) <= EXAMPLE_LENGTH else text[: EXAMPLE_LENGTH - 1].rstrip() + "…"


def _place(components: Iterator[Component] | Sequence[Component]) -> None:
    for component in components:
        component.render()  # type: ignore[no-untyped-call]
