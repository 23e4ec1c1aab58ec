"""Train on from a version: the choice of one in the form, and the buttons that fill the form with it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import gradio as gr
from gradio.components import Component

from errors import AdapterError
from models.resolve import Origins, of_another_base, short_name
from store.adapters import Version
from training.config import HYPERPARAMETERS, TrainConfig
from ui.context import Context
from ui.i18n import Words
from ui.pulse import ASKED, LiveView, PagePoll, chosen_of
from ui.train import page_files
from ui.train.hub_form import Updates
from ui.web.access import Action

TO_TRAIN = """() => {
  const tabs = [...document.querySelectorAll('.g-tabs > .tab-wrapper button[role=tab]')];
  tabs[tabs.length - 2].click();
  document.querySelector('.gradio-container').scrollIntoView({behavior: 'smooth'});
}"""
"""Runs in the browser: shows the Train page, which is the last but one."""


class TrainForm(Protocol):
    """What is filled of the Train page's form."""

    @property
    def tab(self) -> gr.Dropdown:
        """The tab to teach."""

    @property
    def fields(self) -> Mapping[str, Component]:
        """The components that stand for a field of the configuration."""

    @property
    def filled(self) -> list[Component]:
        """The components of the tab, of its example, and of the fields, in this order."""


def place_choice(value: str = "", **settings: Any) -> gr.Dropdown:  # noqa: ANN401 - a Dropdown's own
    """The setting `start_from` as a choice of versions."""
    return gr.Dropdown([value], value=value, allow_custom_value=True, interactive=True, **settings)


def follow(context: Context, pulse: PagePoll, form: TrainForm) -> None:
    """Let the choice offer the versions of the chosen tab, as they are now."""
    chosen = form.fields["start_from"]

    def refresh(say: Words, tab: str | None, value: str | None) -> list[Any]:
        return [chosen_of(choices(context, say, tab or ""), value or "", "")]

    pulse.add(LiveView([form.tab, chosen], [chosen], lambda say, tab, _: (context.changes, tab), refresh, Action.TRAIN))


def choices(context: Context, say: Words, tab: str) -> list[tuple[str, str]]:
    """A fresh adapter, and each version of a tab; one of another base says so."""
    names = {plugin.name for plugin in context.learners()}
    own = context.spec(tab).model if tab in names else ""
    versions = context.adapters.versions(tab) if tab in names else []
    return [(say("train.fresh"), ""), *((label(version, own), version.ref) for version in versions)]


def label(version: Version, own: str) -> str:
    """A version's name in a menu, with its base where that is another than the tab's."""
    return f"{version.ref} · {short_name(version)}" if of_another_base(version, own) else version.ref


def connect(context: Context, button: gr.Button, version: Component, form: TrainForm) -> None:
    """Let a click on `button` fill the form so that it trains on from the version that `version` names."""

    def fill(ref: str | None) -> Updates:
        return values(context, context.adapters.get(ref or ""), form)

    done = button.click(context.allow(Action.TRAIN, fill), version, form.filled, **ASKED)
    done.success(None, js=TO_TRAIN)


def values(context: Context, version: Version, form: TrainForm) -> Updates:
    """Return updates with the tab, its example, and every field as the version was made, to go on from it."""
    spec = context.spec(version.plugin)
    config = TrainConfig.for_tab(spec, Path("data"), version.name, **_settings(version))
    fields = {key: getattr(config, key) for key in form.fields}
    # The choices of versions follow a moment later, so that this one must be put among them now.
    start_from = gr.update(choices=[version.ref], value=version.ref)
    fields |= {"start_from": start_from, "promote": True, "held_out_data": None, "model": base_of(context, version)}
    found = page_files.fitting(context.plugin(version.plugin))
    example = str((version.manifest.get("data") or {}).get("file", ""))
    chosen = example if example in found else next(iter(found), None)
    updates = [spec.name, gr.update(choices=found, value=chosen), *(fields[key] for key in form.fields)]
    return dict(zip(form.filled, updates, strict=True))


def base_of(context: Context, version: Version) -> str:
    """The base to train on from a version: the tab's own, or the one that it was made for."""
    own = context.spec(version.plugin).model
    if not of_another_base(version, own):
        return own
    return Origins(context.settings.home, context.settings.models.values()).id_of(version, own)


def _settings(version: Version) -> Mapping[str, Any]:
    """What the version's own run was told, as far as such settings are known here."""
    told = version.manifest.get("config") or {}
    return {key: told[key] for key in HYPERPARAMETERS if key in told and key != "start_from"}


def next_of(context: Context, name: str, start_from: str, plugin: str) -> Version:
    """The version that a new run would go on from in the place of one that cannot: what it began with, or its newest.

    Raises `AdapterError` where there is none.
    """
    version = context.adapters.get(start_from or name)
    if version.plugin != plugin:
        raise AdapterError(f"{version.ref} is not a version of {plugin}.", f"It was made for {version.plugin}.")
    return version
