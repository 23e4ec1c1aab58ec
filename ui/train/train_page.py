"""Train: choose a tab and rows, see what is in them, start, and watch the run, now or after the page was closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from errors import DataError, GraftError
from training.cli import run_arguments
from training.config import HYPERPARAMETERS, PRESET, TrainConfig
from training.data.files.formats import is_selection, read_selection
from training.estimate import advice, machine
from ui.context import Context
from ui.html.tags import Html
from ui.i18n import t, words
from ui.pulse import ASKED, QUIET, PagePoll, Updates
from ui.train import continue_from, data_form, page_files, run_view, settings_form
from ui.train.data_form import RowsReport, TrainForm, Values
from ui.train.run_panel import RunPanel
from ui.web.access import Action
from ui.web.signin import place_notice

TO_THE_FORM = "() => document.querySelector('.g-columns').scrollIntoView({behavior: 'smooth'})"


def build(context: Context, demo: gr.Blocks, poll: PagePoll) -> TrainForm | None:
    """Place and connect form and panel of runs; returns the form, None where nobody may train or no tab learns."""
    gr.Markdown(t("train.about"), elem_classes="g-about")
    place_notice(context, poll)
    if not context.access.possible:
        return None
    # Neither the form nor the runs, whose cards show rows, are for strangers.
    with poll.reserved(Action.TRAIN):
        if context.learners():
            return TrainPage(context, demo, poll).form
        RunPanel(context, poll)
        return None


class TrainPage:
    """The form, the report on its rows and the panel of runs, placed where it is constructed, and their handlers."""

    def __init__(self, context: Context, demo: gr.Blocks, poll: PagePoll) -> None:
        """Place and connect the page."""
        self._context, self._allow = context, partial(context.allow, Action.TRAIN)
        with gr.Row(elem_classes="g-columns"):
            with gr.Column(elem_classes="g-ask"):
                self.form = TrainForm(context)
                code: dict[str, Any] = {"language": "shell", "lines": 2, "wrap_lines": True, "show_line_numbers": False}
                label = t("train.command")
                self._command = gr.Code("", label=label, interactive=False, elem_classes="g-command", **code)
                """The command that starts the run of the form."""
                self._estimate = gr.HTML("", elem_classes="g-list g-estimate")
                self._anyway = gr.Button(t("estimate.anyway"), visible=False, variant="stop")
                """Starts a run that does not fit."""
                self._start = gr.Button(t("train.start"), variant="primary")
            with gr.Column(elem_classes="g-answer"):
                self._report = RowsReport(context, poll, self.form)
        self._panel = RunPanel(context, poll)
        self._connect_form(demo)
        self._connect_runs()
        continue_from.connect(context, self._panel.on, self._panel.version, self.form)
        continue_from.follow(context, poll, self.form)

    def _connect_form(self, demo: gr.Blocks) -> None:
        """Connect the form: changes of its rows ask for a report, and every change for the command and the estimate."""
        form, rows, allow = self.form, self.form.rows, self._allow
        shown: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": self._report.html}
        report = {**self._report.event, **shown}
        rows.kind.change(allow(rows.show), rows.kind, [*rows.sources.values()], **QUIET)
        hyperparameters = [*form.hyperparameters.values()]
        for trigger, silently in ((form.tab.input, False), (demo.load, True)):
            # Every page is loaded, also by those who may not train: to them nothing happens.
            own = partial(allow, silently=silently)
            filled = [rows.example, rows.upload, form.preset, *hyperparameters]
            reset = trigger(own(self._reset), form.tab, filled, **QUIET)
            reset.then(own(self._report.guess), **report)
            reset.then(own(self._suggest_bases), form.tab, [form.fields["model"], form.bases], **QUIET)
        preset = form.preset.input(allow(self._preset), [form.tab, form.preset], hyperparameters, **QUIET)
        preset.then(allow(self._report.look), **report)
        rows.hub.connect(lambda chosen: chosen.then(allow(self._report.guess), **report))
        others = [rows.kind.input, rows.example.input, rows.upload.upload, rows.upload.clear]
        gr.on(others, allow(self._report.guess), **report)
        again = [*(menu.input for menu in rows.columns.values()), rows.held_out.upload, rows.held_out.clear]
        gr.on([*again, form.fields["max_length"].input], allow(self._report.look), **report)  # type: ignore[attr-defined]
        kinds = (gr.Dropdown, gr.Textbox, gr.Checkbox, gr.Number, gr.File)
        changes = [component.change for component in form.inputs.values() if isinstance(component, kinds)]
        follow = partial(gr.on, changes, inputs_kwargs=form.inputs, trigger_mode="always_last", **QUIET)
        follow(allow(self._write_command), outputs=self._command)
        follow(allow(self._show_estimate), outputs=[self._estimate, self._anyway])

    def _connect_runs(self) -> None:
        """Connect the buttons that start a run, and the one that fills the form with the settings of a run."""
        form, panel = self.form, self._panel
        begin: dict[str, Any] = {"inputs_kwargs": form.inputs, "outputs": panel.chosen, "trigger_mode": "once"}
        begin |= {**ASKED, "show_progress": "minimal"}
        for button, anyway in ((self._start, False), (self._anyway, True)):
            panel.refresh_after(button.click(self._allow(self._begin(anyway)), **begin))
        used = panel.use.click(self._allow(self._use), panel.chosen, [*form.inputs.values()], **ASKED)
        looked = used.success(self._allow(self._report.look), **self._report.event, show_progress_on=self._report.html)
        looked.then(None, js=TO_THE_FORM)

    def _use(self, chosen: Sequence[str]) -> Updates:
        """Fill the form with the settings and rows of the chosen run."""
        config = self._panel.one(chosen).config
        plugin, own = self._context.plugin(config.plugin), Path(config.held_out_data)
        uploaded = config.held_out_data and not config.held_out_split and own.is_file()
        values = {name: getattr(config, name) for name in self.form.fields}
        values["held_out_data"] = page_files.page_copy(own, own.name) if uploaded else None
        fields = {component: values[name] for name, component in self.form.fields.items()}
        return {self.form.tab: plugin.name, **self.form.rows.of_run(config, page_files.fitting(plugin)), **fields}

    def _reset(self, tab: str | None) -> Updates:
        """Show the examples that fit a tab, and the settings of its task."""
        rows, found = self.form.rows, page_files.fitting(self._context.plugin(tab or ""))
        examples = gr.update(choices=found, value=next(iter(found), None))
        return {rows.example: examples, rows.upload: None, self.form.preset: PRESET, **self._preset(tab or "")}

    def _suggest_bases(self, request: gr.Request, tab: str) -> list[Any]:
        """Offer the tab's own base and others that suit it, in the field and in the list."""
        say, spec, settings = words(request), self._context.spec(tab), self._context.settings
        bases = advice.advise(spec, settings, machine.measure(settings.home), say("bases.language"))
        names = dict.fromkeys([spec.model, *(one.base.id for one in bases)])
        return [gr.update(choices=[*names], value=spec.model), settings_form.bases_table(say, bases)]

    def _preset(self, tab: str, preset: str = PRESET) -> Updates:
        """Set every hyperparameter as a preset has it for a tab."""
        config = TrainConfig.for_tab(self._context.spec(tab), Path("data"), "name", preset)
        return {component: getattr(config, name) for name, component in self.form.hyperparameters.items()}

    def _config(self, values: Values) -> TrainConfig:
        """Return the configuration that the form describes; raises `GraftError` with all that is wrong."""
        path = data_form.chosen_file(self._context, values)
        if path is None:
            next_ = "Choose an example, upload a file, or fetch a data set."
            raise DataError("There are no rows to learn from.", "", next_)
        own = data_form.held_out_file(self._context, values, path)
        fields = {name: values[name] for name in ("promote", *HYPERPARAMETERS)}
        fields["model"] = (values["model"] or "").strip() or None
        fields["held_out_data"] = str(own.absolute()) if own else None
        fields["held_out_split"] = data_form.held_out_split(values) if own and is_selection(own) else None
        fields["mapping"] = data_form.chosen_columns(values)
        fields["hub"] = read_selection(path).source if is_selection(path) else None
        return TrainConfig.for_tab(self._context.spec(values["tab"]), path, values["name"] or "", **fields)

    def _begin(self, anyway: bool) -> Callable[..., list[str]]:
        """Return the handler that queues the run of the form; with `anyway`, also one that does not fit."""

        def begin(**values: object) -> list[str]:
            return [self._context.runs.submit(replace(self._config(values), anyway=anyway)).id]

        return begin

    def _write_command(self, **values: object) -> str:
        """Return the command that starts the run of the form, or what is wrong with it."""
        try:
            config = self._config(values)
            return run_arguments.write(config, self._context.spec(config.plugin), page_files.relative(config.data))
        except GraftError as error:
            return f"# {error}"

    def _show_estimate(self, request: gr.Request, **values: object) -> list[Any]:
        """Return the estimate of the run of the form; empty where the command says what is wrong."""
        try:
            plan = self._context.runs.plan(self._config(values))
        except GraftError:
            return [Html(""), gr.update(visible=False)]
        html, fits = run_view.estimate(words(request), plan, self._context.settings.home)
        return [html, gr.update(visible=not fits)]
