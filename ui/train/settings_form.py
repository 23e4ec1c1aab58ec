"""Settings of a run in the form: presets, each hyperparameter with a sentence of help, and the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.components import Component

from training.config import HYPERPARAMETERS, PRESET, PRESETS, Hyperparameter
from training.estimate.advice import Advice
from ui.html.tags import Html, folded, table, tag
from ui.i18n import Words, t

GROUPS = ("length", "optimizer", "lora", "memory", "watch")


def place_presets() -> gr.Radio:
    """Place the choice of a preset."""
    choices = [(t(f"preset.{name}"), name) for name in PRESETS["label"]]
    return gr.Radio(choices, value=PRESET, label=t("train.preset"), info=t("train.preset_info"))


def place_hyperparameters() -> dict[str, Component]:
    """Place a component for each hyperparameter, in groups; returns them by name."""
    placed: dict[str, Component] = {}
    for group in GROUPS:
        gr.Markdown(t(f"knobs.{group}"), elem_classes="g-group")
        with gr.Row(elem_classes="g-numbers"):
            placed |= {name: _component(name, one) for name, one in HYPERPARAMETERS.items() if one.group == group}
    return placed


def _component(name: str, hyperparameter: Hyperparameter) -> Component:
    common: dict[str, Any] = {"label": t(f"knob.{name}"), "info": t(f"help.{name}"), "min_width": 200}
    kind, least = hyperparameter.kind, hyperparameter.least
    if kind == "switch":
        return gr.Checkbox(**common)
    if kind == "choice":
        return gr.Dropdown([*hyperparameter.choices], **common, filterable=False, interactive=True)
    if name == "start_from":
        return gr.Dropdown([""], value="", **common, allow_custom_value=True, interactive=True)
    if kind == "text":
        return gr.Textbox(**common, max_lines=1)
    steps = {"precision": 0, "step": 1} if kind == "whole" else {"precision": None, "step": least or 0.01}
    return gr.Number(**common, minimum=least, maximum=hyperparameter.most, **steps)


def place_base() -> tuple[gr.Dropdown, gr.HTML]:
    """Place the field of the base, which takes any id or folder, and the list of bases below it."""
    base = gr.Dropdown([], label=t("bases.label"), info=t("bases.info"), allow_custom_value=True, interactive=True)
    return base, gr.HTML("", elem_classes="g-list g-bases")


def bases_table(say: Words, bases: Sequence[Advice]) -> Html:
    """Show a line for each base: its size, the memory to answer and to train, and the reason to choose it."""
    head = [say(f"bases.{name}") for name in ("base", "size", "answering", "training", "why")]
    rows = [
        (
            tag("code", one.base.id),
            f"{one.base.shape.parameters / 1e6:,.0f} M",
            f"{one.serving / 1e9:.1f} GB",
            f"{one.estimate.peak / 1e9:.1f} GB",
            f"{say(f'bases.why.{one.base.key}')} {one.base.licence}.",
        )
        for one in bases
    ]
    return folded(say("bases.title"), table(head, rows))
