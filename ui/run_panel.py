"""The panel of runs: the newest or the chosen one, read from its files each second, so that it outlives any page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from ui import run_view
from ui.context import Context
from ui.guard import kindly
from ui.pulse import QUIET, Follower, Pulse
from ui.strings import Words, t

if TYPE_CHECKING:
    from training.runs import Run

LISTED = 30
"""Runs that the menu offers."""


class RunPanel:
    """Its components, placed where it is constructed; it follows the pulse."""

    def __init__(self, context: Context, pulse: Pulse) -> None:
        """Place the panel."""
        self._context = context
        with gr.Column(visible=False, elem_classes="g-section g-runs") as box:
            with gr.Row(elem_classes="g-buttons"):
                self.choice = gr.Dropdown([], label=t("run.title"), interactive=True, scale=3, allow_custom_value=True)
                cancel = gr.Button(t("run.cancel"), variant="stop", visible=False, scale=1)
            html = gr.HTML("", elem_classes="g-list")
        self.shown = [box, self.choice, cancel, html]
        follower = pulse.add(Follower([self.choice], self.shown, self._mark, self._refresh))
        self.refresh = follower.handler()
        self.choice.input(self.refresh, self.choice, self.shown, **QUIET)
        ended = cancel.click(kindly(self._cancel), self.choice, None, trigger_mode="once", **QUIET)
        ended.then(self.refresh, self.choice, self.shown, **QUIET)

    @staticmethod
    def names(runs: Sequence[Run], say: Words) -> list[tuple[str, str]]:
        """The menu of runs, newest first."""
        return [(f"{run.config.name} · {run.id[:15]} · {say(f'run.{run.state}')}", run.id) for run in runs[:LISTED]]

    def _runs(self) -> Sequence[Run]:
        """The runs that may be shown: none where this page may not train, because their cards show rows."""
        return self._context.runs.list() if self._context.settings.may_train else []

    def _mark(self, say: Words, chosen: str | None) -> object:
        runs = self._runs()
        return (hash(str(self.names(runs, say))), hash(run_view.run(say, _chosen(runs, chosen)))) if runs else ()

    def _refresh(self, say: Words, chosen: str | None) -> list[Any]:
        runs = self._runs()
        if not runs:
            return [gr.skip()] * len(self.shown)
        run = _chosen(runs, chosen)
        return [
            gr.update(visible=True),
            gr.update(choices=self.names(runs, say), value=run.id),
            gr.update(visible=run.state == "running"),
            run_view.run(say, run),
        ]

    def _cancel(self, chosen: str | None) -> None:
        self._context.require_training()
        self._context.runs.cancel(chosen or "")


def _chosen(runs: Sequence[Run], id: str | None) -> Run:
    """The run of that id, or the newest."""
    return next((run for run in runs if run.id == id), runs[0])
