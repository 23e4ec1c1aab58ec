"""Continue training from a version: the choice in the form, and the buttons that fill the form with a version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from models.resolve import Origins, of_another_base, short_name
from store.adapters import Version
from training.config import HYPERPARAMETERS, TrainConfig
from ui.context import Context
from ui.i18n import Words
from ui.pulse import ASKED, LiveView, PagePoll, Updates, chosen_of
from ui.train import page_files
from ui.train.data_form import TrainForm
from ui.web.access import Action

TO_TRAIN = """() => {
  const tabs = [...document.querySelectorAll('.g-tabs > .tab-wrapper button[role=tab]')];
  tabs[tabs.length - 2].click();
  document.querySelector('.gradio-container').scrollIntoView({behavior: 'smooth'});
}"""
"""Runs in the browser: shows the Train page, which is the last but one."""


def follow(context: Context, poll: PagePoll, form: TrainForm) -> None:
    """Keep the versions that the choice offers those of the chosen tab."""
    chosen = form.fields["start_from"]

    def refresh(say: Words, tab: str | None, value: str | None) -> list[Any]:
        return [chosen_of(choices(context, say, tab or ""), value or "", "")]

    poll.add(LiveView([form.tab, chosen], [chosen], lambda say, tab, _: (context.changes, tab), refresh, Action.TRAIN))


def choices(context: Context, say: Words, tab: str) -> list[tuple[str, str]]:
    """Return the choices for a tab: a fresh adapter, and each version."""
    if tab not in {plugin.name for plugin in context.learners()}:
        return [(say("train.fresh"), "")]
    own = context.spec(tab).model
    versions = [(label(version, own), version.ref) for version in context.adapters.versions(tab)]
    return [(say("train.fresh"), ""), *versions]


def label(version: Version, own: str) -> str:
    """Return the name of a version in a menu, with its base where that is not `own`."""
    return f"{version.ref} · {short_name(version)}" if of_another_base(version, own) else version.ref


def connect(context: Context, button: gr.Button, version: Component, form: TrainForm) -> None:
    """Let `button` fill the form so that its run continues from the version that `version` names."""

    def fill(ref: str | None) -> Updates:
        return values(context, context.adapters.get(ref or ""), form)

    done = button.click(context.allow(Action.TRAIN, fill), version, [*form.inputs.values()], **ASKED)
    done.success(None, js=TO_TRAIN)


def values(context: Context, version: Version, form: TrainForm) -> Updates:
    """Return updates of the tab, the example, and every field, as the version was made, to continue from it."""
    made = version.manifest.get("config") or {}
    settings = {key: made[key] for key in HYPERPARAMETERS if key in made and key != "start_from"}
    config = TrainConfig.for_tab(context.spec(version.plugin), Path("data"), version.name, **settings)
    fields = {key: getattr(config, key) for key in form.fields}
    # The offered versions follow a moment later, so that this one must be put among them now.
    start_from = gr.update(choices=[version.ref], value=version.ref)
    fields |= {"start_from": start_from, "promote": True, "held_out_data": None, "model": base_of(context, version)}
    found = page_files.fitting(context.plugin(version.plugin))
    example = str((version.manifest.get("data") or {}).get("file", ""))
    chosen = example if example in found else next(iter(found), None)
    example_menu = {form.rows.example: gr.update(choices=found, value=chosen)}
    return {form.tab: version.plugin, **example_menu, **{form.fields[key]: value for key, value in fields.items()}}


def base_of(context: Context, version: Version) -> str:
    """Return the base to continue on: the tab's own, or the one that the version was made for."""
    own = context.spec(version.plugin).model
    if not of_another_base(version, own):
        return own
    return Origins(context.settings.home, context.settings.models.values()).id_of(version, own)


def next_of(context: Context, name: str, start_from: str, plugin: str) -> Version:
    """Return the version to continue from after a refused run of adapter `name`: where it began, or else the newest.

    Raises `AdapterError` where there is none.
    """
    return context.adapters.get_for(plugin, start_from or name)
