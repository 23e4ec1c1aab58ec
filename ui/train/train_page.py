"""Train: choose a tab and rows, see what is in them, start, and watch the run, now or after the page was closed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from errors import DataError, GraftError
from training.cli import run_arguments
from training.config import HYPERPARAMETERS, PRESET, TrainConfig
from training.data.files.formats import is_selection, read_selection
from ui.adapters.card_rows import DOWNLOAD
from ui.context import Context
from ui.i18n import t
from ui.pulse import ASKED, QUIET, PagePoll, Updates
from ui.train import continue_from, data_form, estimate_view, hub_form, page_files, settings_form
from ui.train.data_form import Look, ReportOutputs, TrainForm, Values, place_rows
from ui.train.run_panel import RunPanel
from ui.train.settings_form import place_hyperparameters, place_presets
from ui.web.access import Action
from ui.web.signin import place_notice

TO_THE_FORM = "() => document.querySelector('.g-columns').scrollIntoView({behavior: 'smooth'})"


@dataclass(frozen=True)
class Outputs:
    """Components that follow the form: the command of the run, its estimate, and the list of bases."""

    command: gr.Code
    estimate: tuple[gr.HTML, gr.Button]
    bases: gr.HTML


def build(context: Context, demo: gr.Blocks, poll: PagePoll, here: gr.Textbox) -> TrainForm | None:
    """Place the form and the panel of runs, and connect them; returns the form, or None where no tab learns.

    `here` names a base as soon as it has arrived that a report waits for.
    """
    gr.Markdown(t("train.about"), elem_classes="g-about")
    place_notice(context, poll)
    if not context.access.possible:
        return None
    # Neither the form nor the runs, whose cards show rows, are for strangers.
    with poll.reserved(Action.TRAIN):
        return _place(context, demo, poll, here)


def _place(context: Context, demo: gr.Blocks, poll: PagePoll, here: gr.Textbox) -> TrainForm | None:
    allow = partial(context.allow, Action.TRAIN)
    learners = bool(context.learners())
    with gr.Row(elem_classes="g-columns", visible=learners):
        with gr.Column(elem_classes="g-ask"):
            form, shown, start = _form(context)
        with gr.Column(elem_classes="g-answer"):
            html = gr.HTML("", elem_classes="g-list")
            bad = gr.Button(t("report.bad_rows"), size="sm", visible=False)
            taken = gr.File(visible="hidden", elem_classes="g-unseen")
    panel = RunPanel(context, poll)
    if not learners:
        return None
    report = ReportOutputs(form.rows, html, form.fields["name"], bad, gr.State(""))
    look = data_form.inspect(context, report, keep=True)
    _connect(context, demo, form, shown, report, look)
    made = bad.click(allow(data_form.bad_rows(context, taken)), inputs_kwargs=form.inputs, outputs=taken, **ASKED)
    made.success(None, taken, None, js=DOWNLOAD, api_visibility="private")
    for button, anyway in ((start, False), (shown.estimate[1], True)):
        begun = button.click(
            allow(_start(context, anyway)),
            inputs_kwargs=form.inputs,
            outputs=panel.chosen,
            trigger_mode="once",
            **{**ASKED, "show_progress": "minimal"},
        )
        panel.refresh_after(begun)
    used = panel.use.click(allow(_use(context, panel, form)), panel.chosen, [*form.inputs.values()], **ASKED)
    looked = used.success(
        allow(look), inputs_kwargs=form.inputs, outputs=report.all, api_visibility="private", show_progress_on=html
    )
    looked.then(None, js=TO_THE_FORM)
    data_form.follow(context, poll, report, here, look, form.inputs)
    continue_from.connect(context, panel.on, panel.version, form)
    continue_from.follow(context, poll, form)
    return form


def _form(context: Context) -> tuple[TrainForm, Outputs, gr.Button]:
    """Place the form, the components that follow it, and the button that starts the run."""
    plugins = context.learners()
    first = plugins[0] if plugins else None
    tab = gr.Dropdown(
        [(p.say(p.title), p.name) for p in plugins],
        value=first.name if first else None,
        label=t("train.tab"),
        interactive=True,
        filterable=False,
    )
    rows = place_rows(first)
    name = gr.Textbox(label=t("train.name"), info=t("train.name_info"), max_lines=1)
    promote = gr.Checkbox(value=True, label=t("train.promote"))
    preset = place_presets()
    base, bases = settings_form.place_base()
    with gr.Accordion(t("train.advanced"), open=False):
        hyperparameters = place_hyperparameters()
    command = gr.Code(
        "",
        language="shell",
        label=t("train.command"),
        interactive=False,
        wrap_lines=True,
        lines=2,
        show_line_numbers=False,
        elem_classes="g-command",
    )
    estimate = estimate_view.place_estimate()
    start = gr.Button(t("train.start"), variant="primary")
    fields = {"name": name, "promote": promote, "model": base, **hyperparameters, "held_out_data": rows.held_out}
    return TrainForm(tab, rows, preset, fields), Outputs(command, estimate, bases), start


def _connect(
    context: Context, demo: gr.Blocks, form: TrainForm, shown: Outputs, report: ReportOutputs, look: Look
) -> None:
    """Connect the form: changes of its rows ask for a report, and every change for the command and the estimate."""
    allow, rows, guess = partial(context.allow, Action.TRAIN), form.rows, data_form.inspect(context, report, keep=False)
    # A file chosen while another is being read must not be lost.
    reports: dict[str, Any] = {
        "inputs_kwargs": form.inputs,
        "outputs": report.all,
        "trigger_mode": "always_last",
        "show_progress": "minimal",
        "show_progress_on": report.html,
        "api_visibility": "private",
    }
    rows.kind.change(allow(rows.show), rows.kind, [rows.example, rows.upload, rows.hub_group], **QUIET)
    for trigger, silently in ((form.tab.input, False), (demo.load, True)):
        # Every page is loaded, also by those who may not train: to them nothing happens.
        own = partial(allow, silently=silently)
        fields = [rows.example, rows.upload, form.preset, *form.hyperparameters.values()]
        filled = trigger(own(_defaults(context, form)), form.tab, fields, **QUIET)
        filled.then(own(guess), **reports)
        filled.then(own(settings_form.suited(context)), form.tab, [form.fields["model"], shown.bases], **QUIET)
    hub_form.connect(context, rows.hub, lambda chosen: chosen.then(allow(guess), **reports))
    preset = form.preset.input(
        allow(_preset(context, form)), [form.tab, form.preset], [*form.hyperparameters.values()], **QUIET
    )
    preset.then(allow(look), **reports)
    gr.on([rows.kind.input, rows.example.input, rows.upload.upload, rows.upload.clear], allow(guess), **reports)
    again = [*(menu.input for menu in rows.columns.values()), rows.held_out.upload, rows.held_out.clear]
    gr.on([*again, form.fields["max_length"].input], allow(look), **reports)  # type: ignore[attr-defined]
    kinds = (gr.Dropdown, gr.Textbox, gr.Checkbox, gr.Number, gr.File)
    changes = [component.change for component in form.inputs.values() if isinstance(component, kinds)]
    gr.on(
        changes,
        allow(_command(context)),
        inputs_kwargs=form.inputs,
        outputs=shown.command,
        trigger_mode="always_last",
        **QUIET,
    )
    estimate_view.connect(context, changes, form.inputs, shown.estimate, partial(_config, context))


def _use(context: Context, panel: RunPanel, form: TrainForm) -> Callable[..., Updates]:
    """Return the handler that fills the form with the settings and rows of the chosen run."""

    def use(chosen: Sequence[str]) -> Updates:
        config = panel.one(chosen).config
        plugin = context.plugin(config.plugin)
        own = Path(config.held_out_data)
        uploaded = config.held_out_data and not config.held_out_split and own.is_file()
        values = {name: getattr(config, name) for name in form.fields}
        values["held_out_data"] = page_files.page_copy(own, own.name) if uploaded else None
        fields = {component: values[name] for name, component in form.fields.items()}
        return {form.tab: plugin.name, **form.rows.of_run(config, page_files.fitting(plugin)), **fields}

    return use


def _defaults(context: Context, form: TrainForm) -> Callable[..., Updates]:
    """Return the handler that shows the examples that fit a tab, and the settings of its task."""

    def defaults(tab: str | None) -> Updates:
        if tab is None:
            raise DataError("There is no tab that can be trained.", "", "Reload the page.")
        found = page_files.fitting(context.plugin(tab))
        examples = gr.update(choices=found, value=next(iter(found), None))
        settings = _settings(context, form, tab)
        return {form.rows.example: examples, form.rows.upload: None, form.preset: PRESET, **settings}

    return defaults


def _preset(context: Context, form: TrainForm) -> Callable[..., Updates]:
    """Return the handler that sets every setting as a preset has it."""

    def preset(tab: str, chosen: str) -> Updates:
        return _settings(context, form, tab, chosen)

    return preset


def _settings(context: Context, form: TrainForm, tab: str, preset: str = PRESET) -> Updates:
    config = TrainConfig.for_tab(context.spec(tab), Path("data"), "name", preset)
    return {component: getattr(config, name) for name, component in form.hyperparameters.items()}


def _config(context: Context, values: Values) -> TrainConfig:
    """Return the configuration that the form describes; raises `GraftError` with all that is wrong."""
    path = data_form.chosen_file(context, values)
    if path is None:
        next_ = "Choose an example, upload a file, or fetch a data set."
        raise DataError("There are no rows to learn from.", "", next_)
    own = data_form.held_out_file(context, values, path)
    fields = {name: values[name] for name in ("promote", *HYPERPARAMETERS)}
    fields["model"] = (values["model"] or "").strip() or None
    fields["held_out_data"] = str(own.absolute()) if own else None
    fields["held_out_split"] = data_form.held_out_split(values) if own and is_selection(own) else None
    fields["mapping"] = data_form.chosen_columns(values)
    fields["hub"] = read_selection(path).source if is_selection(path) else None
    return TrainConfig.for_tab(context.spec(values["tab"]), path, values["name"] or "", **fields)


def _start(context: Context, anyway: bool) -> Callable[..., list[str]]:
    def start(**values: object) -> list[str]:
        return [context.runs.submit(replace(_config(context, values), anyway=anyway)).id]

    return start


def _command(context: Context) -> Callable[..., str]:
    def command(**values: object) -> str:
        try:
            config = _config(context, values)
            return run_arguments.write(config, context.spec(config.plugin), page_files.relative(config.data))
        except GraftError as error:
            return f"# {error}"

    return command
