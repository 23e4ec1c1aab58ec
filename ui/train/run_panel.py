"""The panel of runs: their table and the chosen run or several, read anew each second, so that it outlives any page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, get_args

import gradio as gr
from gradio.events import Dependency

from errors import GraftError, RunError
from training.events import LOG
from training.runs.run import Run, Verb
from ui.adapters.card_rows import CardRows
from ui.context import Context
from ui.html.tags import Html, failure, tag
from ui.i18n import Words, t, words
from ui.pulse import ASKED, QUIET, LiveView, PagePoll, Updates, in_order
from ui.train import continue_from, page_files, run_view
from ui.web.access import Action

TAIL = 200
"""Lines of the log that the page shows."""


class RunPanel:
    """The components, placed where it is constructed and kept up to date by the page's poll."""

    def __init__(self, context: Context, poll: PagePoll) -> None:
        """Place the panel."""
        self._context, self._allow = context, partial(context.allow, Action.TRAIN)
        self.chosen = gr.State([])
        self.version = gr.State("")  # the one that the chosen run published, or that a new one would go on from
        self._to_delete = gr.State("")  # the run whose deletion waits to be confirmed
        with gr.Column(visible=False, elem_classes="g-section g-runs") as self._box:
            gr.Markdown(t("run.title"), elem_classes="g-section-title")
            self._table = gr.HTML("", elem_classes="g-list", js_on_load=run_view.CHOOSE)
            self._place_buttons()
            self._html = gr.HTML("", elem_classes="g-list", js_on_load=run_view.OPEN)
            self._rows = CardRows(context, poll, self.chosen, self._card, Action.TRAIN)
            with gr.Accordion(t("run.log"), open=False, visible=False) as self._unfold:
                self._log = gr.HTML("", elem_classes="g-log")
                save = gr.Button(t("run.save_log"), size="sm")
        page_files.download(save, self._allow(self._copy_log), self.chosen)
        self._outputs: list[Any] = []
        self._add_views(poll)
        self._connect()

    def _place_buttons(self) -> None:
        with gr.Row(elem_classes="g-buttons"):
            self._verbs: dict[Verb, gr.Button] = {
                verb: gr.Button(t(f"run.{verb}"), visible=False, variant="stop" if verb == "cancel" else "secondary")
                for verb in get_args(Verb)
            }
            self.use = gr.Button(t("run.use"), visible=False)
            self.on = gr.Button(t("adapters.train_on"), visible=False)
            self._confirm = gr.Button(t("run.sure"), visible=False, variant="stop")

    def _add_views(self, poll: PagePoll) -> None:
        def add(inputs: list[Any], outputs: list[Any], show: Callable[..., Updates], mark: Any = None) -> None:  # noqa: ANN401
            shown = mark or (lambda *values: hash(str([*show(*values).values()])))
            poll.add(LiveView(inputs, outputs, shown, in_order(outputs, show), Action.TRAIN))
            self._outputs += outputs

        chosen, buttons = [self.chosen], [*self._verbs.values(), self.use, self._confirm]
        add(chosen, [self._box, self._table], self._show_list)
        # By themselves, because a button that is sent anew under a pressed mouse loses the click.
        add([self.chosen, self._to_delete], buttons, self._show_buttons)
        add(chosen, [self._html], self._show_run, self._mark_run)
        add(chosen, [self._unfold, self._log], self._show_log, self._mark_log)
        add(chosen, [self.version, self.on, self._rows.signal], self._show_version, self._mark_version)

    def _connect(self) -> None:
        self.refresh_after(self._table.select(self._allow(self._choose), self.chosen, self.chosen, **QUIET))
        runs = self._context.runs
        self._act(self._verbs["pause"], runs.pause)
        self._act(self._verbs["resume"], runs.resume)
        self._act(self._verbs["cancel"], runs.cancel)
        self._act(self._confirm, runs.delete)
        ask = self._allow(lambda chosen: self.one(chosen).id)
        self.refresh_after(self._verbs["delete"].click(ask, self.chosen, self._to_delete, **ASKED))

    def _act(self, button: gr.Button, act: Callable[[str], None]) -> None:
        handler = self._allow(lambda chosen: act(self.one(chosen).id))
        self.refresh_after(button.click(handler, self.chosen, None, trigger_mode="once", **ASKED))

    def refresh_after(self, event: Dependency) -> None:
        """Show all of the panel anew after an event, without waiting for the poll."""
        event.then(self._allow(self._refresh), [self.chosen, self._to_delete], self._outputs, **QUIET)

    def _refresh(self, request: gr.Request, chosen: Sequence[str], to_delete: str) -> Updates:
        say = words(request)
        parts = (self._show_list, self._show_run, self._show_log, self._show_version)
        shown = self._show_buttons(say, chosen, to_delete)
        return shown | {output: update for show in parts for output, update in show(say, chosen).items()}

    def one(self, chosen: Sequence[str]) -> Run:
        """Return the run that is shown; raises `GraftError`."""
        for run in self._picked(chosen):
            return run
        raise RunError("There is no run.", "", "Train one.")

    def _picked(self, chosen: Sequence[str]) -> list[Run]:
        """Return the chosen runs that are there, or else the running one, or else the newest."""
        runs = self._context.runs.list()
        running = [run for run in runs if run.state == "running"]
        return [run for run in runs if run.id in chosen] or [*running, *runs][:1]

    def _alone(self, chosen: Sequence[str]) -> Run | None:
        """Return the run that is shown by itself, or None where there are several or none."""
        picked = self._picked(chosen)
        return picked[0] if len(picked) == 1 else None

    def _choose(self, event: gr.EventData, chosen: Sequence[str]) -> list[str]:
        """Choose the run of the clicked row alone; a click on its box adds it to the others or takes it away."""
        id, picked = str(event.run), [run.id for run in self._picked(chosen)]
        if not event.several:
            return [id]
        return [other for other in picked if other != id] if id in picked else [*picked, id]

    def _show_list(self, say: Words, chosen: Sequence[str]) -> Updates:
        try:
            picked = {run.id for run in self._picked(chosen)}
            html = run_view.runs_table(say, self._context.runs.list(), picked, partial(self._context.title, say))
        except GraftError as error:
            html = failure(error)
        return {self._box: gr.update(visible=bool(html)), self._table: html}

    def _show_buttons(self, say: Words, chosen: Sequence[str], to_delete: str) -> Updates:
        alone = self._alone(chosen)
        shown = {button: bool(alone and alone.may(verb)) for verb, button in self._verbs.items()}
        shown |= {self.use: bool(alone), self._confirm: bool(alone and alone.id == to_delete and alone.may("delete"))}
        return {button: gr.update(visible=visible) for button, visible in shown.items()}

    def _mark_run(self, say: Words, chosen: Sequence[str]) -> object:
        return [
            (run, run.pausing, run.progress.phase, run.progress.step, run.progress.latest)
            for run in self._picked(chosen)
        ]

    def _show_run(self, say: Words, chosen: Sequence[str]) -> Updates:
        if alone := self._alone(chosen):
            return {self._html: run_view.details(say, alone, self._context.title(say, alone.plugin))}
        picked = self._picked(chosen)
        return {self._html: run_view.several(say, picked) if picked else Html("")}

    def _mark_log(self, say: Words, chosen: Sequence[str]) -> object:
        logs = {run.id: run.folder / LOG for run in self._picked(chosen)}
        return [(id, path.stat().st_size if path.exists() else 0) for id, path in logs.items()]

    def _show_log(self, say: Words, chosen: Sequence[str]) -> Updates:
        alone = self._alone(chosen)
        lines = alone.log_tail(TAIL) if alone else []
        return {self._unfold: gr.update(visible=bool(lines)), self._log: tag("pre", "\n".join(lines))}

    def _card(self, chosen: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
        """Return the id and the card of the run that is shown by itself, where it ended well."""
        alone = self._alone(chosen)
        return (alone.id, alone.result.get("card") or {}) if alone and alone.state == "done" else ("", {})

    def _mark_version(self, say: Words, chosen: Sequence[str]) -> object:
        return [(run.id, run.state) for run in self._picked(chosen)], self._context.changes

    def _show_version(self, say: Words, chosen: Sequence[str]) -> Updates:
        """Show the version that can be trained on from, and have the rows of the run's card shown."""
        alone = self._alone(chosen)
        ref = self._continues_from(alone) if alone else ""
        on = gr.update(visible=bool(ref), value=say("run.train_on", version=ref))
        return {self.version: ref, self.on: on, self._rows.signal: str(self._mark_version(say, chosen))}

    def _continues_from(self, run: Run) -> str:
        """Return the version that a run published or, where its checkpoint was refused, that a new run goes on from."""
        with suppress(GraftError):
            if run.state == "done" and run.version:
                return self._context.adapters.get(run.version).ref
            if run.state == "failed" and run.result.get("what") == run_view.REFUSED:
                return continue_from.next_of(self._context, run.name, run.config.start_from, run.plugin).ref
        return ""

    def _copy_log(self, chosen: Sequence[str]) -> str:
        """Return a copy of the log that the browser may read."""
        run = self.one(chosen)
        return page_files.page_copy(run.folder / LOG, f"{run.name}-{run.id}.log")
