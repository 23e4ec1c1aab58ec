"""Train: choose a tab and rows, see what is in them, start, and watch the run, now or after the page was closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import DataError, GraftError
from training import command_line
from training.config import TrainConfig
from training.knobs import KNOBS, PRESET
from training.selection import is_selection, read_selection
from ui import examples, hub_form, rows_form
from ui.context import Context
from ui.guard import kindly
from ui.knobs_form import place_knobs, place_presets
from ui.pulse import QUIET, Pulse
from ui.rows_form import RowsForm, place_rows
from ui.run_panel import RunPanel
from ui.strings import t, words

TO_THE_FORM = "() => document.querySelector('.g-columns').scrollIntoView({behavior: 'smooth'})"


@dataclass(frozen=True)
class Form:
    """The components whose values make a configuration, in the order in which handlers receive them."""

    tab: gr.Dropdown
    rows: RowsForm
    name: gr.Textbox
    promote: gr.Checkbox
    preset: gr.Radio
    knobs: Mapping[str, Component]

    @property
    def source(self) -> list[Component]:
        """What the report is about."""
        return [self.tab, *self.rows.all]

    @property
    def fields(self) -> dict[str, Component]:
        """The components that stand for a field of the configuration, by its name."""
        return {"name": self.name, "promote": self.promote, **self.knobs}

    @property
    def all(self) -> list[Component]:
        """Everything."""
        return [*self.source, *self.fields.values()]


def build(context: Context, demo: gr.Blocks, pulse: Pulse) -> None:
    """Place the form and the panel of runs, and connect them."""
    gr.Markdown(t("train.about"), elem_classes="g-about")
    if not context.settings.may_train:
        # Neither the form nor the runs, whose cards show rows: they are not for strangers.
        gr.Markdown(t("train.off"), elem_classes="g-off")
        return
    learners = bool(context.learners())
    with gr.Row(elem_classes="g-columns", visible=learners):
        with gr.Column(elem_classes="g-ask"):
            form, command, start = _form(context)
        with gr.Column(elem_classes="g-answer"):
            report = gr.HTML("", elem_classes="g-list")
    panel = RunPanel(context, pulse)
    if not learners:
        return
    _connect(context, demo, form, report, command)
    begun = start.click(kindly(_start(context, form)), form.all, panel.chosen, api_visibility="private",
                        trigger_mode="once", show_progress="minimal")  # fmt: skip
    begun.then(panel.refresh, panel.taken, panel.shown, **QUIET)
    used = panel.use.click(kindly(_use(context, panel, form)), panel.chosen, form.all, **QUIET)
    look, outputs = kindly(rows_form.inspect(context, keep=True)), [report, *form.rows.columns, form.name]
    looked = used.success(look, form.source, outputs, api_visibility="private", show_progress_on=report)
    looked.then(None, js=TO_THE_FORM)


def _form(context: Context) -> tuple[Form, gr.Code, gr.Button]:
    plugins = context.learners()
    first = plugins[0] if plugins else None
    tab = gr.Dropdown(
        [(p.say(p.title), p.name) for p in plugins], value=first.name if first else None, label=t("train.tab"),
        interactive=True, filterable=False,
    )  # fmt: skip
    rows = place_rows(first)
    name = gr.Textbox(label=t("train.name"), info=t("train.name_info"), max_lines=1)
    promote = gr.Checkbox(value=True, label=t("train.promote"))
    preset = place_presets()
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
    with gr.Accordion(t("train.paste"), open=False):
        pasted = gr.Textbox(label=t("train.paste"), info=t("train.paste_info"), lines=2, max_lines=6, show_label=False)
        fill = gr.Button(t("train.paste_do"), size="sm")
    start = gr.Button(t("train.start"), variant="primary")
    form = Form(tab, rows, name, promote, preset, knobs)
    fill.click(kindly(_fill(context, form)), pasted, [tab, *rows.place, preset, *form.fields.values()],
               trigger_mode="once", **QUIET)  # fmt: skip
    return form, command, start


def _connect(context: Context, demo: gr.Blocks, form: Form, report: gr.HTML, command: gr.Code) -> None:
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": report}
    # A file chosen while another is being read must not be lost.
    private["trigger_mode"] = "always_last"
    look, guess = kindly(rows_form.inspect(context, keep=True)), kindly(rows_form.inspect(context, keep=False))
    outputs = [report, *form.rows.columns, form.name]

    def look_in(chosen: Any) -> None:  # noqa: ANN401 - an event of Gradio's
        chosen.then(guess, form.source, outputs, **private)

    for trigger in (form.tab.input, demo.load):
        fields = [form.rows.example, form.rows.upload, form.preset, *form.knobs.values()]
        filled = trigger(kindly(_defaults(context)), form.tab, fields, **QUIET)
        look_in(filled)
    hub_form.connect(context, form.rows.hub, look_in)
    form.preset.input(kindly(_preset(context)), [form.tab, form.preset], [*form.knobs.values()], **QUIET)
    rows = form.rows
    chosen = [rows.kind.input, rows.example.input, rows.upload.upload, rows.upload.clear]
    gr.on(chosen, guess, form.source, outputs, **private)
    gr.on([column.input for column in form.rows.columns], look, form.source, outputs, **private)
    kinds = (gr.Dropdown, gr.Textbox, gr.Checkbox, gr.Number, gr.File)
    changes = [c.change for c in form.all if isinstance(c, kinds)]
    gr.on(changes, kindly(_command(context, form)), form.all, command, trigger_mode="always_last", **QUIET)


def _use(context: Context, panel: RunPanel, form: Form) -> Any:  # noqa: ANN401
    """Fill the form with what a run was told."""

    def use(chosen: Sequence[str]) -> list[Any]:
        config = panel.one(chosen).config
        plugin = context.plugin(config.plugin)
        rows = rows_form.of_run(config, examples.fitting(plugin))
        parts = rows_form.shown_columns({**config.columns, **config.mapping})
        fields = [getattr(config, key) for key in form.fields]
        return [plugin.name, *rows, *parts, *fields]

    return use


def _defaults(context: Context) -> Any:  # noqa: ANN401 - a handler of Gradio's
    """The examples that fit a tab, and its task's own numbers."""

    def defaults(tab: str | None) -> list[Any]:
        context.require_training()
        if tab is None:
            raise DataError("There is no tab that can be trained.", "", "Reload the page.")
        found = examples.fitting(context.plugin(tab))
        config = TrainConfig.for_tab(context.spec(tab), Path("data"), "name")
        chosen = gr.update(choices=found, value=next(iter(found), None))
        return [chosen, None, PRESET, *(getattr(config, key) for key in KNOBS)]

    return defaults


def _preset(context: Context) -> Any:  # noqa: ANN401
    """Every setting as a preset has it."""

    def preset(tab: str, chosen: str) -> list[Any]:
        context.require_training()
        config = TrainConfig.for_tab(context.spec(tab), Path("data"), "name", chosen)
        return [getattr(config, key) for key in KNOBS]

    return preset


def _fill(context: Context, form: Form) -> Any:  # noqa: ANN401
    """Fill the form from a pasted command; its rows only where they are one of the examples."""

    def fill(request: gr.Request, command: str) -> list[Any]:
        context.require_training()
        options, say = command_line.read(command), words(request)
        plugin = context.plugin(options.plugin)
        config = command_line.to_config(options, context.spec(plugin.name))
        found = examples.fitting(plugin)
        rows, known = rows_form.of_command(options, found)
        gr.Info(say("train.pasted" if known else "train.pasted_no_data"))
        return [plugin.name, *rows, options.preset, *(getattr(config, key) for key in form.fields)]

    return fill


def _config(context: Context, form: Form, values: Sequence[Any]) -> TrainConfig:
    """The configuration that the form describes; raises `GraftError` with all that is wrong."""
    tab, *rest = values
    where, columns = rows_form.divide(rest)
    fields = dict(zip(form.fields, rest[rows_form.COUNT :], strict=True))
    path = rows_form.chosen_file(context, where)
    if path is None:
        raise DataError(
            "There are no rows to learn from.", "", "Choose an example, upload a file, or fetch a data set."
        )
    mapping = rows_form.chosen_columns(columns)
    name = fields.pop("name") or ""
    hub = read_selection(path).source if is_selection(path) else None
    return TrainConfig.for_tab(context.spec(tab), path, name, mapping=mapping, hub=hub, **fields)


def _start(context: Context, form: Form) -> Any:  # noqa: ANN401
    def start(*values: object) -> list[str]:
        context.require_training()
        return [context.runs.submit(_config(context, form, values)).id]

    return start


def _command(context: Context, form: Form) -> Any:  # noqa: ANN401
    def command(*values: object) -> str:
        try:
            config = _config(context, form, values)
            return command_line.write(config, context.spec(config.plugin), examples.relative(config.data))
        except GraftError as error:
            return f"# {error}"

    return command
