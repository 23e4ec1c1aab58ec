"""Train: choose a tab and rows, see what is in them, start, and watch the run, now or after the page was closed."""

from __future__ import annotations

import filecmp
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import DataError, GraftError
from tasks import TabSpec
from training import command_line
from training.config import TrainConfig
from training.content import FORMATS
from training.knobs import KNOBS, PRESET
from training.rows import PARTS
from ui import examples, report_view
from ui.context import Context
from ui.guard import kindly
from ui.knobs_form import place_knobs, place_presets
from ui.pulse import QUIET, Pulse
from ui.render import Html, failure
from ui.run_panel import RunPanel, page_copy
from ui.strings import t, words

LARGEST = 50 * 2**20
"""Bytes of an uploaded file."""
TO_THE_FORM = "() => document.querySelector('.g-columns').scrollIntoView({behavior: 'smooth'})"


@dataclass(frozen=True)
class Form:
    """The components whose values make a configuration, in the order in which handlers receive them."""

    tab: gr.Dropdown
    example: gr.Dropdown
    upload: gr.File
    columns: Sequence[gr.Dropdown]
    name: gr.Textbox
    promote: gr.Checkbox
    preset: gr.Radio
    knobs: Mapping[str, Component]

    @property
    def source(self) -> list[Component]:
        """What the report is about."""
        return [self.tab, self.example, self.upload, *self.columns]

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
    looked = used.success(kindly(_inspect(context, keep=True)), form.source, [report, *form.columns, form.name],
                          api_visibility="private", show_progress_on=report)  # fmt: skip
    looked.then(None, js=TO_THE_FORM)


def _form(context: Context) -> tuple[Form, gr.Code, gr.Button]:
    plugins = context.learners()
    first = plugins[0] if plugins else None
    tab = gr.Dropdown(
        [(p.say(p.title), p.name) for p in plugins], value=first.name if first else None, label=t("train.tab"),
        interactive=True, filterable=False,
    )  # fmt: skip
    found = examples.fitting(first) if first else []
    example = gr.Dropdown(found, value=next(iter(found), None), label=t("train.example"), interactive=True,
                          allow_custom_value=True)  # fmt: skip
    upload = gr.File(file_types=list(FORMATS), file_count="single", label=t("train.upload"), height=130,
                     elem_classes="g-upload")  # fmt: skip
    with gr.Row(elem_classes="g-mapping"):
        columns = [gr.Dropdown([], label=t(f"train.column_{part}"), visible=False, interactive=True, min_width=120,
                               allow_custom_value=True) for part in PARTS]  # fmt: skip
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
    form = Form(tab, example, upload, columns, name, promote, preset, knobs)
    fill.click(kindly(_fill(context, form)), pasted, [tab, example, preset, *form.fields.values()],
               trigger_mode="once", **QUIET)  # fmt: skip
    return form, command, start


def _connect(context: Context, demo: gr.Blocks, form: Form, report: gr.HTML, command: gr.Code) -> None:
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "minimal", "show_progress_on": report}
    # A file chosen while another is being read must not be lost.
    private["trigger_mode"] = "always_last"
    look, guess = kindly(_inspect(context, keep=True)), kindly(_inspect(context, keep=False))
    outputs = [report, *form.columns, form.name]
    for trigger in (form.tab.input, demo.load):
        fields = [form.example, form.upload, form.preset, *form.knobs.values()]
        filled = trigger(kindly(_defaults(context)), form.tab, fields, **QUIET)
        filled.then(guess, form.source, outputs, **private)
    form.preset.input(kindly(_preset(context)), [form.tab, form.preset], [*form.knobs.values()], **QUIET)
    gr.on([form.example.input, form.upload.upload, form.upload.clear], guess, form.source, outputs, **private)
    gr.on([column.input for column in form.columns], look, form.source, outputs, **private)
    kinds = (gr.Dropdown, gr.Textbox, gr.Checkbox, gr.Number, gr.File)
    changes = [c.change for c in form.all if isinstance(c, kinds)]
    gr.on(changes, kindly(_command(context, form)), form.all, command, trigger_mode="always_last", **QUIET)


def _use(context: Context, panel: RunPanel, form: Form) -> Any:  # noqa: ANN401
    """Fill the form with what a run was told."""

    def use(chosen: Sequence[str]) -> list[Any]:
        config = panel.one(chosen).config
        plugin = context.plugin(config.plugin)
        data, found = Path(config.data), examples.fitting(plugin)
        example = data.name if data.name in found and same(examples.find(data.name), data) else None
        upload = None if example else page_copy(data, data.name)
        columns = {**config.columns, **config.mapping}
        parts = [gr.update(choices=[name] if (name := columns.get(part)) else [], value=name, visible=bool(name))
                 for part in PARTS]  # fmt: skip
        fields = [getattr(config, key) for key in form.fields]
        return [plugin.name, gr.update(choices=found, value=example), upload, *parts, *fields]

    return use


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


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
        example = options.data.name if options.data.name in found else None
        gr.Info(say("train.pasted" if example else "train.pasted_no_data"))
        chosen = gr.update(choices=found, value=example) if example else gr.update(choices=found)
        return [plugin.name, chosen, options.preset, *(getattr(config, key) for key in form.fields)]

    return fill


def _inspect(context: Context, keep: bool) -> Any:  # noqa: ANN401
    """Look into the chosen file; `keep` takes the columns as the user set them, otherwise they are guessed."""

    def inspect(
        request: gr.Request, tab: str, example: str | None, upload: str | None, *columns: str | None
    ) -> list[Any]:
        context.require_training()
        unchanged = [gr.skip()] * (len(PARTS) + 1)
        say = words(request)
        path = chosen_file(example, upload)
        if path is None:
            return [Html(""), *([gr.update(visible=False)] * len(PARTS)), gr.skip()]
        mapping = {part: column for part, column in zip(PARTS, columns, strict=True) if column} if keep else {}
        try:
            found = context.runs.inspect(path, context.spec(tab), mapping)
        except GraftError as error:
            return [
                failure(error),
                *(unchanged if keep else [*_choosable(context.spec(tab), path), suggested_name(path)]),
            ]
        shown = [gr.update(choices=list(found.columns), value=found.mapping.get(part), visible=part in found.mapping)
                 for part in PARTS]  # fmt: skip
        return [report_view.report(say, found), *shown, gr.skip() if keep else suggested_name(path)]

    return inspect


def _choosable(spec: TabSpec, path: Path) -> list[Any]:
    """The file's own columns to choose from, for a file in which they could not be guessed."""
    chats = bool(spec.columns and spec.columns.messages)
    found = examples.columns(path)
    return [
        gr.update(choices=found, value=None, visible=bool(found) and (part != "messages" or chats)) for part in PARTS
    ]


def chosen_file(example: str | None, upload: str | None) -> Path | None:
    """The file to learn from: what was uploaded, else the example. Raises `DataError` for what cannot be one."""
    if upload:
        path = Path(upload)
        if path.suffix.lower() not in FORMATS:
            raise DataError(f"{path.name} is not a table of rows.", "", f"Use one of {', '.join(FORMATS)}.")
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path.name} is too large.", "", "At most 50 MB; train from the command line instead.")
        return path
    return examples.find(example) if example else None


def suggested_name(path: Path) -> str:
    """A name for the adapter, made of the file's."""
    return re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_")[:40] or "mine"


def _config(context: Context, form: Form, values: Sequence[Any]) -> TrainConfig:
    """The configuration that the form describes; raises `GraftError` with all that is wrong."""
    tab, example, upload, *rest = values
    columns, fields = rest[: len(PARTS)], dict(zip(form.fields, rest[len(PARTS) :], strict=True))
    path = chosen_file(example, upload)
    if path is None:
        raise DataError("There are no rows to learn from.", "", "Choose an example or upload a file.")
    mapping = {part: column for part, column in zip(PARTS, columns, strict=True) if column}
    name = fields.pop("name") or ""
    return TrainConfig.for_tab(context.spec(tab), path, name, mapping=mapping, **fields)


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
