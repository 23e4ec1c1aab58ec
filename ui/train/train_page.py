"""Train: choose a tab and rows, see what is in them, start, and watch the run, now or after the page was closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from errors import DataError, GraftError
from training.cli import run_arguments
from training.config import HYPERPARAMETERS, PRESET, TrainConfig
from training.data.files.selection import is_selection, read_selection
from ui.adapters.card_rows import DOWNLOAD
from ui.context import Context
from ui.i18n import t
from ui.pulse import ASKED, QUIET, PagePoll
from ui.train import continue_from, data_form, estimate_view, hub_form, page_files, settings_form
from ui.train.data_form import Look, ReportOutputs, RowsForm, Values, place_rows
from ui.train.hub_form import Updates
from ui.train.run_panel import RunPanel
from ui.train.settings_form import place_knobs, place_presets
from ui.web.access import Action
from ui.web.owner import place_notice

TO_THE_FORM = "() => document.querySelector('.g-columns').scrollIntoView({behavior: 'smooth'})"


@dataclass(frozen=True)
class Form:
    """The components whose values make a configuration."""

    tab: gr.Dropdown
    rows: RowsForm
    preset: gr.Radio
    fields: Mapping[str, Component]
    """The components that stand for a field of the configuration, by its name."""

    @property
    def inputs(self) -> dict[str, Block]:
        """Every component by the name of its value."""
        return {"tab": self.tab, **self.rows.inputs, **self.fields}

    @property
    def filled(self) -> list[Component]:
        """The components that a version fills to be trained on from: the tab, its example, and the fields."""
        return [self.tab, self.rows.example, *self.fields.values()]

    @property
    def knobs(self) -> dict[str, Component]:
        """The components of the settings that a preset has."""
        return {name: self.fields[name] for name in HYPERPARAMETERS}


@dataclass(frozen=True)
class Outputs:
    """What the form shows of itself: the command of the run and what it will need."""

    command: gr.Code
    estimate: tuple[gr.HTML, gr.Button]
    bases: gr.HTML


def build(context: Context, demo: gr.Blocks, pulse: PagePoll, here: gr.Textbox) -> Form | None:
    """Place the form and the panel of runs, and connect them; returns the form, or None where no tab learns.

    `here` names a base as soon as it has arrived that a report waits for.
    """
    gr.Markdown(t("train.about"), elem_classes="g-about")
    place_notice(context, pulse)
    if not context.access.possible:
        return None
    # Neither the form nor the runs, whose cards show rows, are for strangers.
    with pulse.reserved(Action.TRAIN):
        return _place(context, demo, pulse, here)


def _place(context: Context, demo: gr.Blocks, pulse: PagePoll, here: gr.Textbox) -> Form | None:
    allow = partial(context.allow, Action.TRAIN)
    learners = bool(context.learners())
    with gr.Row(elem_classes="g-columns", visible=learners):
        with gr.Column(elem_classes="g-ask"):
            form, shown, start = _form(context)
        with gr.Column(elem_classes="g-answer"):
            report = gr.HTML("", elem_classes="g-list")
            bad = gr.Button(t("report.bad_rows"), size="sm", visible=False)
            taken = gr.File(visible="hidden", elem_classes="g-unseen")
    panel = RunPanel(context, pulse)
    if not learners:
        return None
    reported = ReportOutputs(report, form.fields["name"], bad, gr.State(""))
    look = data_form.inspect(context, form.rows, reported, keep=True)
    guess = data_form.inspect(context, form.rows, reported, keep=False)
    outputs = [report, *form.rows.columns.values(), reported.name, bad, reported.waits]
    _connect(context, demo, form, shown, (look, guess), outputs)
    made = bad.click(allow(data_form.bad_rows(context, taken)), inputs_kwargs=form.inputs, outputs=taken, **ASKED)
    made.success(None, taken, None, js=DOWNLOAD, api_visibility="private")
    for button, anyway in ((start, False), (shown.estimate[1], True)):
        begun = button.click(
            allow(_start(context, anyway)),
            inputs_kwargs=form.inputs,
            outputs=panel.chosen,
            api_visibility="private",
            trigger_mode="once",
            show_progress="minimal",
        )
        begun.then(panel.refresh, panel.taken, panel.shown, **QUIET)
    used = panel.use.click(allow(_use(context, panel, form)), panel.chosen, [*form.inputs.values()], **ASKED)
    looked = used.success(
        allow(look), inputs_kwargs=form.inputs, outputs=outputs, api_visibility="private", show_progress_on=report
    )
    looked.then(None, js=TO_THE_FORM)
    data_form.follow(context, pulse, reported.waits, here, look, form.inputs, outputs)
    continue_from.connect(context, panel.on, panel.version, form)
    continue_from.follow(context, pulse, form)
    return form


def _form(context: Context) -> tuple[Form, Outputs, gr.Button]:
    """Place the form, what it shows of itself, and the button that starts the run."""
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
        knobs = place_knobs()
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
    fields = {"name": name, "promote": promote, "model": base, **knobs, "held_out_data": rows.held_out}
    return Form(tab, rows, preset, fields), Outputs(command, estimate, bases), start


def _connect(
    context: Context,
    demo: gr.Blocks,
    form: Form,
    shown: Outputs,
    looks: tuple[Look, Look],
    outputs: Sequence[Component],
) -> None:
    """Connect the form: every change of its rows asks for a report, and every change for command and estimate."""
    allow, rows, (look, guess) = partial(context.allow, Action.TRAIN), form.rows, looks
    # A file chosen while another is being read must not be lost.
    private: dict[str, Any] = {
        "api_visibility": "private",
        "show_progress": "minimal",
        "show_progress_on": outputs[0],
        "trigger_mode": "always_last",
        "inputs_kwargs": form.inputs,
        "outputs": outputs,
    }
    rows.kind.change(allow(rows.show), rows.kind, [rows.example, rows.upload, rows.hub_group], **QUIET)
    for trigger, silently in ((form.tab.input, False), (demo.load, True)):
        # Every page is loaded, also by those who may not train: to them nothing happens.
        own = partial(allow, silently=silently)
        fields = [rows.example, rows.upload, form.preset, *form.knobs.values()]
        filled = trigger(own(_defaults(context, form)), form.tab, fields, **QUIET)
        filled.then(own(guess), **private)
        filled.then(own(settings_form.suited(context)), form.tab, [form.fields["model"], shown.bases], **QUIET)
    hub_form.connect(context, rows.hub, lambda chosen: chosen.then(allow(guess), **private))
    preset = form.preset.input(allow(_preset(context, form)), [form.tab, form.preset], [*form.knobs.values()], **QUIET)
    preset.then(allow(look), **private)
    gr.on([rows.kind.input, rows.example.input, rows.upload.upload, rows.upload.clear], allow(guess), **private)
    again = [*(menu.input for menu in rows.columns.values()), rows.held_out.upload, rows.held_out.clear]
    gr.on([*again, form.fields["max_length"].input], allow(look), **private)  # type: ignore[attr-defined]
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


def _use(context: Context, panel: RunPanel, form: Form) -> Callable[..., Updates]:
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


def _defaults(context: Context, form: Form) -> Callable[..., Updates]:
    """Return the handler that shows the examples that fit a tab, and the settings of its task."""

    def defaults(tab: str | None) -> Updates:
        if tab is None:
            raise DataError("There is no tab that can be trained.", "", "Reload the page.")
        found = page_files.fitting(context.plugin(tab))
        examples = gr.update(choices=found, value=next(iter(found), None))
        settings = _settings(context, form, tab)
        return {form.rows.example: examples, form.rows.upload: None, form.preset: PRESET, **settings}

    return defaults


def _preset(context: Context, form: Form) -> Callable[..., Updates]:
    """Return the handler that sets every setting as a preset has it."""

    def preset(tab: str, chosen: str) -> Updates:
        return _settings(context, form, tab, chosen)

    return preset


def _settings(context: Context, form: Form, tab: str, preset: str = PRESET) -> Updates:
    config = TrainConfig.for_tab(context.spec(tab), Path("data"), "name", preset)
    return {component: getattr(config, name) for name, component in form.knobs.items()}


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
