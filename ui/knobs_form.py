"""The settings of a run on the page: presets to choose from, and every single one, with a sentence of help each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.components import Component

from training.knobs import KNOBS, PRESET, PRESETS, Knob
from ui.strings import t
from ui.train_on import place_choice

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
            for name, knob in KNOBS.items():
                if knob.group == group:
                    placed[name] = _component(name, knob)
    return {name: placed[name] for name in KNOBS}


def _component(name: str, knob: Knob) -> Component:
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
