"""The versions of each tab with their figures; promote one, roll back, or return to the base."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from plugins import TaskPlugin
from store.adapters import BASE
from ui import card_view
from ui.context import Context
from ui.guard import kindly
from ui.pulse import QUIET, Follower, Pulse
from ui.strings import Words, t


def build(context: Context, pulse: Pulse) -> None:
    """Place a section for each tab that learns."""
    gr.Markdown(t("adapters.about"), elem_classes="g-about")
    if not context.settings.may_train:
        gr.Markdown(t("train.off"), elem_classes="g-off")
    for plugin in context.learners():
        with gr.Column(elem_classes="g-section"):
            gr.Markdown(plugin.say(plugin.title), elem_classes="g-section-title")
            _section(context, plugin, pulse)


def _section(context: Context, plugin: TaskPlugin, pulse: Pulse) -> None:
    may = context.settings.may_train
    shown = gr.HTML("", elem_classes="g-list")
    with gr.Row(elem_classes="g-buttons", visible=may):
        version = gr.Dropdown([], label=t("adapters.version"), show_label=False, scale=2, interactive=True)
        promote = gr.Button(t("adapters.promote"), variant="primary", scale=1)
        back = gr.Button(t("adapters.roll_back"), scale=1)
        base = gr.Button(t("adapters.use_base"), scale=1)
    parts = [shown, version, promote, back, base]
    refresh = refresher(context, plugin.name)
    follower = pulse.add(Follower([version], parts, mark=lambda say, _: context.changes, refresh=refresh))
    store = context.adapters
    acts: list[tuple[gr.Button, Callable[[str], object]]] = [
        (promote, lambda ref: _promote(context, plugin.name, ref)),
        (back, lambda _: store.roll_back(plugin.name)),
        (base, lambda _: store.promote(plugin.name, BASE, "returned to the base on the page")),
    ]
    for button, act in acts:
        done = button.click(kindly(_allowed(context, act)), version, None, trigger_mode="once", **QUIET)
        done.then(follower.handler(), version, parts, **QUIET)


def _promote(context: Context, name: str, ref: str) -> None:
    """Let a version answer, once it was loaded as a request would load it: a damaged one is refused here."""
    context.pool.check(context.spec(name), ref)
    context.adapters.promote(name, ref, "promoted on the page")


def _allowed(context: Context, act: Callable[[str], object]) -> Callable[[str | None], None]:
    """`act` on the chosen version, where this page may promote: decided here, whatever the layout hides."""

    def handler(ref: str | None) -> None:
        context.require_training()
        act(ref or "")
        context.versions_changed()

    return handler


def refresher(context: Context, name: str) -> Callable[[Words, str | None], list[Any]]:
    """Shows a tab's versions as they are now."""

    def refresh(say: Words, chosen: str | None) -> list[Any]:
        store = context.adapters
        found, live = store.versions(name), store.live(name)
        refs = [version.ref for version in found]
        before = previous(context, name)
        # The newest that a click would change something for.
        newest = next((ref for ref in refs if not live or ref != live.ref), next(iter(refs), None))
        return [
            card_view.versions(say, found, live.ref if live else ""),
            gr.update(choices=refs, value=chosen if chosen in refs else newest, visible=bool(refs)),
            gr.update(visible=bool(refs)),
            gr.update(
                visible=before is not None,
                value=say("adapters.roll_back_to", version=say("task.base") if before == BASE else before or ""),
            ),
            gr.update(visible=live is not None),
        ]

    return refresh


def previous(context: Context, name: str) -> str | None:
    """What a roll back would return to; None when nothing was promoted."""
    history = context.adapters.history(name)
    return (history[-2]["version"] if len(history) > 1 else BASE) if history else None
