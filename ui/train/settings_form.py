"""The settings of a run on the page: presets to choose from, and every single one, with a sentence of help each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from training.config import HYPERPARAMETERS, PRESET, PRESETS, Hyperparameter
from training.estimate import advice, machine
from ui.context import Context
from ui.html.tags import Html, folded, table, tag
from ui.i18n import Words, t, words
from ui.train.continue_from import place_choice

GROUPS = ("length", "optimizer", "lora", "memory", "watch")


def place_presets() -> gr.Radio:
    """The choice of a preset."""
    choices = [(t(f"preset.{name}"), name) for name in PRESETS["label"]]
    return gr.Radio(choices, value=PRESET, label=t("train.preset"), info=t("train.preset_info"))


def place_knobs() -> Mapping[str, Component]:
    """A component for each setting, by its name, in groups."""
    placed: dict[str, Component] = {}
    for group in GROUPS:
        gr.Markdown(t(f"knobs.{group}"), elem_classes="g-group")
        with gr.Row(elem_classes="g-numbers"):
            for name, knob in HYPERPARAMETERS.items():
                if knob.group == group:
                    placed[name] = _component(name, knob)
    return {name: placed[name] for name in HYPERPARAMETERS}


def _component(name: str, knob: Hyperparameter) -> Component:
    words: dict[str, Any] = {"label": t(f"knob.{name}"), "info": t(f"help.{name}")}
    if knob.kind == "switch":
        return gr.Checkbox(**words, min_width=200)
    if knob.kind == "choice":
        return gr.Dropdown(list(knob.choices), **words, filterable=False, interactive=True, min_width=200)
    if name == "start_from":
        return place_choice(**words, min_width=200)
    if knob.kind == "text":
        return gr.Textbox(**words, max_lines=1, min_width=200)
    whole = knob.kind == "whole"
    return gr.Number(**words, minimum=knob.least, maximum=knob.most, precision=0 if whole else None,
                     step=1 if whole else knob.least or 0.01, min_width=200)  # fmt: skip


def place_base() -> tuple[gr.Dropdown, gr.HTML]:
    """The field, which takes any id or folder, and the list beside it."""
    base = gr.Dropdown([], label=t("bases.label"), info=t("bases.info"), allow_custom_value=True, interactive=True)
    return base, gr.HTML("", elem_classes="g-list g-bases")


def suited(context: Context) -> Any:  # noqa: ANN401 - a handler of Gradio's
    """The tab's own base, and what else there is for it: choices of the field, and the list."""

    def found(request: gr.Request, tab: str) -> list[Any]:
        say, spec = words(request), context.spec(tab)
        free = machine.measure(context.settings.home)
        looked = advice.advise(spec, context.settings, free, say("bases.language"))
        names = [spec.model, *(one.base.id for one in looked if one.base.id != spec.model)]
        return [gr.update(choices=names, value=spec.model), view(say, looked)]

    return found


def view(say: Words, looked: list[advice.Advice]) -> Html:
    """A line for each base: its sizes, what it takes, and why one would take it."""
    head = [say(f"bases.{name}") for name in ("base", "size", "answering", "training", "why")]
    rows = (
        [
            tag("code", one.base.id),
            f"{one.base.shape.parameters / 1e6:,.0f} M",
            fit_size(one.serving),
            fit_size(one.estimate.peak),
            f"{say(f'bases.why.{one.base.key}')} {one.base.licence}.",
        ]
        for one in looked
    )
    return folded(say("bases.title"), table(head, rows))


def fit_size(size: float) -> str:
    """Bytes for a narrow column."""
    return f"{size / 1e9:.1f} GB"
