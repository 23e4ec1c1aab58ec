"""Train: choose a tab and rows, see what is in them, start, and watch the run, now or after the page was closed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import DataError, GraftError
from training.cli import run_arguments
from training.config import HYPERPARAMETERS, PRESET, TrainConfig
from training.data.files.formats import is_selection, read_selection
from ui.adapters.card_rows import DOWNLOAD
from ui.context import Context
from ui.i18n import t
from ui.pulse import ASKED, QUIET, PagePoll
from ui.train import continue_from, data_form, estimate_view, examples, hub_form, settings_form
from ui.train.data_form import RowsForm, place_rows
from ui.train.run_panel import RunPanel, page_copy
from ui.train.settings_form import place_knobs, place_presets
from ui.web.access import Action
from ui.web.signin import place_notice

TO_THE_FORM = "() => document.querySelector('.g-columns').scrollIntoView({behavior: 'smooth'})"


@dataclass(frozen=True)
class Form:
    """The components whose values make a configuration, in the order in which handlers receive them."""

    tab: gr.Dropdown
    rows: RowsForm
    name: gr.Textbox
    promote: gr.Checkbox
    preset: gr.Radio
    base: gr.Dropdown
    knobs: Mapping[str, Component]

    @property
    def source(self) -> list[Component]:
        """What the report is about."""
        return [self.tab, *self.rows.all]

    @property
    def looked(self) -> list[Component]:
        """What decides what is said of it."""
        return [*self.source, self.knobs["max_length"], self.rows.held_out]

    @property
    def fields(self) -> dict[str, Component]:
        """The components that stand for a field of the configuration, by its name."""
        named = {"name": self.name, "promote": self.promote, "model": self.base}
        return {**named, **self.knobs, "held_out_data": self.rows.held_out}

    @property
    def filled(self) -> list[Component]:
        """What a version fills to be trained on from: the tab, its example, and the fields."""
        return [self.tab, self.rows.example, *self.fields.values()]

    @property
    def all(self) -> list[Component]:
        """Everything."""
        return [*self.source, *self.fields.values()]


def build(context: Context, demo: gr.Blocks, pulse: PagePoll, here: gr.Textbox) -> Form | None:
    """Place the form and the panel of runs, and connect them; gives the form, where there is one.

    `here` is told of a base that has arrived, for which the report waits.
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
            form, listed, command, expected, start = _form(context)
        with gr.Column(elem_classes="g-answer"):
            report = gr.HTML("", elem_classes="g-list")
            bad = gr.Button(t("report.bad_rows"), size="sm", visible=False)
            taken = gr.File(visible="hidden", elem_classes="g-unseen")
    panel = RunPanel(context, pulse)
    if not learners:
        return None
    waits = gr.State("")
    outputs = [report, *form.rows.columns, form.name, bad, waits]
    _connect(context, demo, form, outputs, command, listed, expected)
    made = bad.click(allow(data_form.bad_rows(context, taken)), form.source, taken, **ASKED)
    made.success(None, taken, None, js=DOWNLOAD, api_visibility="private")
    for button, anyway in ((start, False), (expected[1], True)):
        begun = button.click(allow(_start(context, form, anyway)), form.all, panel.chosen, api_visibility="private",
                             trigger_mode="once", show_progress="minimal")  # fmt: skip
        begun.then(panel.refresh, panel.taken, panel.shown, **QUIET)
    used = panel.use.click(allow(_use(context, panel, form)), panel.chosen, form.all, **ASKED)
    look = allow(data_form.inspect(context, keep=True))
    looked = used.success(look, form.looked, outputs, api_visibility="private", show_progress_on=report)
    looked.then(None, js=TO_THE_FORM)
    data_form.follow(context, pulse, waits, here, data_form.inspect(context, keep=True), form.looked, outputs)
    continue_from.connect(context, panel.on, panel.version, form)
    continue_from.follow(context, pulse, form)
    return form


def _form(context: Context) -> tuple[Form, gr.HTML, gr.Code, tuple[gr.HTML, gr.Button], gr.Button]:
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
    base, listed = settings_form.place_base()
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
    expected = estimate_view.place_estimate()
    start = gr.Button(t("train.start"), variant="primary")
    form = Form(tab, rows, name, promote, preset, base, knobs)
    return form, listed, command, expected, start


def _connect(context: Context, demo: gr.Blocks, form: Form, outputs: Sequence[Component], command: gr.Code,
             listed: gr.HTML, expected: tuple[gr.HTML, gr.Button]) -> None:  # fmt: skip
    allow, rows = partial(context.allow, Action.TRAIN), form.rows
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": outputs[0]}
    # A file chosen while another is being read must not be lost.
    private["trigger_mode"] = "always_last"
    look, guess = allow(data_form.inspect(context, keep=True)), allow(data_form.inspect(context, keep=False))

    def look_in(chosen: Any, how: Any = guess) -> None:  # noqa: ANN401 - an event of Gradio's, and a handler
        chosen.then(how, form.looked, outputs, **private)

    rows.kind.change(allow(data_form.show), rows.kind, [rows.example, rows.upload, rows.group], **QUIET)
    for trigger, silently in ((form.tab.input, False), (demo.load, True)):
        fields = [rows.example, rows.upload, form.preset, *form.knobs.values()]
        # Every page is loaded, also by those who may not train: to them nothing happens.
        own = partial(allow, silently=silently)
        filled = trigger(own(_defaults(context)), form.tab, fields, **QUIET)
        look_in(filled, own(data_form.inspect(context, keep=False)))
        filled.then(own(settings_form.suited(context)), form.tab, [form.base, listed], **QUIET)
    hub_form.connect(context, rows.hub, look_in)
    preset = form.preset.input(allow(_preset(context)), [form.tab, form.preset], [*form.knobs.values()], **QUIET)
    preset.then(look, form.looked, outputs, **private)
    chosen = [rows.kind.input, rows.example.input, rows.upload.upload, rows.upload.clear]
    gr.on(chosen, guess, form.looked, outputs, **private)
    again = [*(column.input for column in rows.columns), rows.held_out.upload, rows.held_out.clear]
    longest = form.knobs["max_length"]
    gr.on([*again, longest.input], look, form.looked, outputs, **private)  # type: ignore[attr-defined]
    kinds = (gr.Dropdown, gr.Textbox, gr.Checkbox, gr.Number, gr.File)
    changes = [c.change for c in form.all if isinstance(c, kinds)]
    gr.on(
        changes,
        allow(_command(context, form)),
        form.all,
        command,
        trigger_mode="always_last",
        **QUIET,
    )
    estimate_view.connect(context, changes, form.all, expected, lambda values: _config(context, form, values))


def _use(context: Context, panel: RunPanel, form: Form) -> Any:  # noqa: ANN401
    """Fill the form with what a run was told."""

    def use(chosen: Sequence[str]) -> list[Any]:
        config = panel.one(chosen).config
        plugin = context.plugin(config.plugin)
        rows = data_form.of_run(config, examples.fitting(plugin))
        parts = data_form.shown_columns({**config.columns, **config.mapping})
        own = Path(config.held_out_data)
        uploaded = config.held_out_data and not config.held_out_split and own.is_file()
        held_out = page_copy(own, own.name) if uploaded else None
        fields = [held_out if key == "held_out_data" else getattr(config, key) for key in form.fields]
        return [plugin.name, *rows, *parts, *fields]

    return use


def _defaults(context: Context) -> Any:  # noqa: ANN401 - a handler of Gradio's
    """The examples that fit a tab, and its task's own numbers."""

    def defaults(tab: str | None) -> list[Any]:
        if tab is None:
            raise DataError("There is no tab that can be trained.", "", "Reload the page.")
        found = examples.fitting(context.plugin(tab))
        config = TrainConfig.for_tab(context.spec(tab), Path("data"), "name")
        chosen = gr.update(choices=found, value=next(iter(found), None))
        return [chosen, None, PRESET, *(getattr(config, key) for key in HYPERPARAMETERS)]

    return defaults


def _preset(context: Context) -> Any:  # noqa: ANN401
    """Every setting as a preset has it."""

    def preset(tab: str, chosen: str) -> list[Any]:
        config = TrainConfig.for_tab(context.spec(tab), Path("data"), "name", chosen)
        return [getattr(config, key) for key in HYPERPARAMETERS]

    return preset


def _config(context: Context, form: Form, values: Sequence[Any]) -> TrainConfig:
    """The configuration that the form describes; raises `GraftError` with all that is wrong."""
    tab, *rest = values
    where, columns = data_form.divide(rest)
    fields = dict(zip(form.fields, rest[data_form.COUNT :], strict=True))
    path = data_form.chosen_file(context, where)
    if path is None:
        next_ = "Choose an example, upload a file, or fetch a data set."
        raise DataError("There are no rows to learn from.", "", next_)
    own = data_form.held_out_file(context, where, path, fields.get("held_out_data"))
    fields["held_out_data"] = str(own.absolute()) if own else None
    fields["held_out_split"] = where.held_out if own and where.kind == "hub" and is_selection(own) else None
    mapping = data_form.chosen_columns(columns)
    name = fields.pop("name") or ""
    fields["model"] = (fields.get("model") or "").strip() or None
    hub = read_selection(path).source if is_selection(path) else None
    return TrainConfig.for_tab(context.spec(tab), path, name, mapping=mapping, hub=hub, **fields)


def _start(context: Context, form: Form, anyway: bool) -> Any:  # noqa: ANN401
    def start(*values: object) -> list[str]:
        return [context.runs.submit(replace(_config(context, form, values), anyway=anyway)).id]

    return start


def _command(context: Context, form: Form) -> Any:  # noqa: ANN401
    def command(*values: object) -> str:
        try:
            config = _config(context, form, values)
            return run_arguments.write(config, context.spec(config.plugin), examples.relative(config.data))
        except GraftError as error:
            return f"# {error}"

    return command
