"""The panel of runs: the table, and the chosen run or several, read anew each second, so that it outlives any page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import gradio as gr

from errors import GraftError, RunError
from training.events import LOG
from ui.adapters.card_rows import CardRows
from ui.context import Context
from ui.html.tags import Html, failure, tag
from ui.i18n import Words, t
from ui.pulse import ASKED, QUIET, LiveView, PagePoll
from ui.train import continue_from, run_view
from ui.train.page_files import page_copy
from ui.web.access import Action

if TYPE_CHECKING:
    from training.runs.run import Run, Verb

TAIL = 200
"""Lines of the log that the page shows."""
SAVE_LOG = "g-save-log"
FETCH = f"() => document.querySelector('#{SAVE_LOG}').click()"


class RunPanel:
    """Its components, placed where it is constructed; it follows the pulse."""

    def __init__(self, context: Context, pulse: PagePoll) -> None:
        """Place the panel."""
        self._context, self._allow = context, partial(context.allow, Action.TRAIN)
        self.chosen = gr.State([])
        self.version = gr.State("")  # the one that the chosen run published, or that a new one would go on from
        self._doubted = gr.State("")  # the run whose deletion was asked for and waits for a second word
        with gr.Column(visible=False, elem_classes="g-section g-runs") as self._box:
            gr.Markdown(t("run.title"), elem_classes="g-section-title")
            self._table = gr.HTML("", elem_classes="g-list", js_on_load=run_view.CHOOSE)
            self._place_buttons()
            self._html = gr.HTML("", elem_classes="g-list", js_on_load=run_view.OPEN)
            self._card_of = gr.State("")  # the run whose card's rows are shown
            self._rows = CardRows(context, self._card_of, self._card, Action.TRAIN)
            with gr.Accordion(t("run.log"), open=False, visible=False) as self._unfold:
                self._log = gr.HTML("", elem_classes="g-log")
                save = gr.Button(t("run.save_log"), size="sm")
                file = gr.DownloadButton(elem_id=SAVE_LOG)
        self._follow(pulse)
        self._connect()
        save.click(self._allow(self._copy_log), self.chosen, file, **ASKED).then(None, js=FETCH)

    def _place_buttons(self) -> None:
        with gr.Row(elem_classes="g-buttons"):
            self._verbs: dict[Verb, gr.Button] = {
                "pause": gr.Button(t("run.pause"), visible=False),
                "resume": gr.Button(t("run.resume"), visible=False),
                "cancel": gr.Button(t("run.cancel"), visible=False, variant="stop"),
                "delete": gr.Button(t("run.delete"), visible=False),
            }
            self.use = gr.Button(t("run.use"), visible=False)
            self.on = gr.Button(t("adapters.train_on"), visible=False)
            self._sure = gr.Button(t("run.sure"), visible=False, variant="stop")

    def _follow(self, pulse: PagePoll) -> None:
        listed, verbs = [self._box, self._table], [*self._verbs.values(), self.use, self._sure]
        unfolded = [self._unfold, self._log]
        rows = [self._card_of, self.version, self.on, *self._rows.shown]
        followers = [
            LiveView([self.chosen], listed, self._mark_list, self._show_list, Action.TRAIN),
            # By themselves, because a button that is sent anew under a pressed mouse loses the click.
            LiveView([self.chosen, self._doubted], verbs, self._mark_verbs, self._show_verbs, Action.TRAIN),
            LiveView([self.chosen], [self._html], self._mark_run, self._show_run, Action.TRAIN),
            LiveView([self.chosen], unfolded, self._mark_log, self._show_log, Action.TRAIN),
            LiveView([self.chosen, *self._rows.taken], rows, self._mark_rows, self._show_rows, Action.TRAIN),
        ]
        self.taken = [self.chosen, self._doubted, *self._rows.taken]
        self.shown = [*listed, *verbs, self._html, *unfolded, *rows]
        everything = LiveView(self.taken, self.shown, lambda *_: None, self._show_all, Action.TRAIN)
        self.refresh = everything.handler(self._context.access)
        for follower in followers:
            pulse.add(follower)

    def _connect(self) -> None:
        picked = self._table.select(self._allow(self._choose), self.chosen, self.chosen, **QUIET)
        picked.then(self.refresh, self.taken, self.shown, **QUIET)
        runs = self._context.runs
        acts: dict[Verb, Callable[[str], None]] = {"pause": runs.pause, "resume": runs.resume, "cancel": runs.cancel}
        for verb, act in acts.items():
            self._act(self._verbs[verb], act)
        doubted = self._verbs["delete"].click(
            self._allow(lambda chosen: self.one(chosen).id), self.chosen, self._doubted, **ASKED
        )
        doubted.then(self.refresh, self.taken, self.shown, **QUIET)
        self._act(self._sure, runs.delete)

    def _act(self, button: gr.Button, act: Callable[[str], None]) -> None:
        done = button.click(
            self._allow(lambda chosen: act(self.one(chosen).id)), self.chosen, None, trigger_mode="once", **ASKED
        )
        done.then(self.refresh, self.taken, self.shown, **QUIET)

    def one(self, chosen: Sequence[str]) -> Run:
        """The run that is shown; raises `GraftError`."""
        found = self._picked(chosen)
        if not found:
            raise RunError("There is no run.", "", "Train one.")
        return found[0]

    def _runs(self) -> Sequence[Run]:
        """The runs, newest first."""
        return self._context.runs.list()

    def _picked(self, chosen: Sequence[str]) -> list[Run]:
        """The runs that were chosen and are there; otherwise the one that goes on, otherwise the newest."""
        runs = self._runs()
        going_on = [run for run in runs if run.state == "running"]
        return [run for run in runs if run.id in chosen] or [*going_on, *runs][:1]

    def _choose(self, event: gr.EventData, chosen: Sequence[str]) -> list[str]:
        """A click on a row chooses it alone; one on its box adds it to the others or takes it away."""
        id, picked = str(event.run), [run.id for run in self._picked(chosen)]
        if not event.several:
            return [id]
        return [other for other in picked if other != id] if id in picked else [*picked, id]

    def _mark_list(self, say: Words, chosen: Sequence[str]) -> object:
        try:
            return hash(str(self._table_of(say, chosen)))
        except GraftError as error:
            return str(error)

    def _show_list(self, say: Words, chosen: Sequence[str]) -> list[Any]:
        try:
            found = self._table_of(say, chosen)
        except GraftError as error:
            found = failure(error)
        return [gr.update(visible=bool(found)), found]

    def _table_of(self, say: Words, chosen: Sequence[str]) -> Html:
        picked = {run.id for run in self._picked(chosen)}
        return run_view.table(say, self._runs(), picked, partial(self._context.title, say))

    def _verbs_of(self, chosen: Sequence[str], doubted: str) -> list[bool]:
        """Which buttons there are for what is chosen."""
        picked = self._picked(chosen)
        alone = picked[0] if len(picked) == 1 else None
        verbs = [bool(alone and alone.may(verb)) for verb in self._verbs]
        return [*verbs, alone is not None, bool(alone and alone.id == doubted and alone.may("delete"))]

    def _mark_verbs(self, say: Words, chosen: Sequence[str], doubted: str = "") -> object:
        return self._verbs_of(chosen, doubted)

    def _show_verbs(self, say: Words, chosen: Sequence[str], doubted: str = "") -> list[Any]:
        return [gr.update(visible=visible) for visible in self._verbs_of(chosen, doubted)]

    def _mark_run(self, say: Words, chosen: Sequence[str]) -> object:
        return [(run, run.pausing, run.progress.phase, run.progress.step, run.progress.latest)
                for run in self._picked(chosen)]  # fmt: skip

    def _show_run(self, say: Words, chosen: Sequence[str]) -> list[Any]:
        picked = self._picked(chosen)
        if len(picked) == 1:
            return [run_view.run(say, picked[0], self._context.title(say, picked[0].plugin))]
        return [run_view.several(say, picked) if picked else Html("")]

    def _mark_log(self, say: Words, chosen: Sequence[str]) -> object:
        return [(run.id, path.stat().st_size if (path := run.folder / LOG).exists() else 0)
                for run in self._picked(chosen)]  # fmt: skip

    def _show_log(self, say: Words, chosen: Sequence[str]) -> list[Any]:
        picked = self._picked(chosen)
        lines = picked[0].log_tail(TAIL) if len(picked) == 1 else []
        return [gr.update(visible=bool(lines)), tag("pre", "\n".join(lines))]

    def _card(self, id: str) -> Mapping[str, Any]:
        """The card of a run that has ended well; raises `GraftError`."""
        return self._context.runs.get(id).result.get("card") or {}

    def _mark_rows(self, say: Words, chosen: Sequence[str], *_: object) -> object:
        return [(run.id, run.state) for run in self._picked(chosen)], self._context.changes

    def _show_rows(
        self, say: Words, chosen: Sequence[str], kind: str | None = None, search: str | None = None
    ) -> list[Any]:
        """The rows of the chosen run's card, and the version that can be trained on from."""
        picked = self._picked(chosen)
        alone = picked[0] if len(picked) == 1 else None
        id = alone.id if alone and alone.state == "done" else ""
        ref = self._goes_on_from(alone) if alone else ""
        on = gr.update(visible=bool(ref), value=say("run.train_on", version=ref))
        return [id, ref, on, *self._rows.updates(say, id, kind, search)]

    def _goes_on_from(self, run: Run) -> str:
        """The version a run published; for one that its checkpoint refused, the one that a new run can go on from."""
        with suppress(GraftError):
            if run.state == "done" and run.version:
                return self._context.adapters.get(run.version).ref
            if run.state == "failed" and run.result.get("what") == run_view.REFUSED:
                return continue_from.next_of(self._context, run.name, run.config.start_from, run.plugin).ref
        return ""

    def _show_all(
        self, say: Words, chosen: Sequence[str], doubted: str, kind: str | None = None, search: str | None = None
    ) -> list[Any]:
        shown = [*self._show_list(say, chosen), *self._show_verbs(say, chosen, doubted), *self._show_run(say, chosen)]
        return [*shown, *self._show_log(say, chosen), *self._show_rows(say, chosen, kind, search)]

    def _copy_log(self, chosen: Sequence[str]) -> str:
        """A copy of the log for the browser, which may not read the folder of runs."""
        run = self.one(chosen)
        return page_copy(run.folder / LOG, f"{run.name}-{run.id}.log")
