"""Train: the form. Where rows come from, the columns that are learned from, and the settings of a run.

Handlers receive the form's values by name, as `TrainForm.inputs` names them, and return updates by component.
"""

from __future__ import annotations

import filecmp
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from errors import DataError, GraftError
from plugins import TaskPlugin
from training.config import TrainConfig
from training.data.files.formats import FORMATS, is_selection, title
from training.data.files.hub_dataset import NotFetched, beside
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER
from training.data.rows import PARTS, UnknownColumns
from ui.context import Context
from ui.html.tags import Html, failure
from ui.i18n import Words, t, words
from ui.pulse import ASKED, LiveView, PagePoll, Updates
from ui.train import hub_form, page_files, report_view, settings_form
from ui.train.hub_form import HubForm
from ui.web.access import Action
from ui.web.gradio_private import cache_file

HUB, COLUMN = "hub_", "column_"
"""Prefixes of the names of values: `hub_id`, `column_text`."""
Values = Mapping[str, Any]
"""Values of the form by name."""


class RowsForm:
    """Components that say where rows come from and which columns are learned from, placed where it is constructed."""

    def __init__(self, context: Context, plugin: TaskPlugin) -> None:
        """Place the components, with the examples of `plugin`."""
        found = page_files.fitting(plugin)
        kinds = [(t(f"rows.{kind}"), kind) for kind in ("example", "upload", "hub")]
        menu = partial(gr.Dropdown, interactive=True, allow_custom_value=True)
        file = partial(gr.File, file_types=list(FORMATS), file_count="single", height=130, elem_classes="g-upload")
        self.kind = gr.Radio(kinds, value="example", label=t("rows.from"), elem_classes="g-from")
        self.example = menu(found, value=next(iter(found), None), label=t("train.example"))
        self.upload = file(label=t("train.upload"), visible=False)
        with gr.Column(visible=False, elem_classes="g-hub") as hub_group:
            self.hub = HubForm(context)
        self.sources: dict[str, Block] = {"example": self.example, "upload": self.upload, "hub": hub_group}
        """Components of each kind of source."""
        with gr.Row(elem_classes="g-mapping"):
            self.columns: dict[str, gr.Dropdown] = {
                part: menu([], label=t(f"train.column_{part}"), visible=False, min_width=120) for part in PARTS
            }
        with gr.Accordion(t("train.held_out_title"), open=False):
            self.held_out = file(label=t("train.held_out_file"))
        hub = {f"{HUB}{name}": component for name, component in self.hub.inputs.items()}
        columns = {f"{COLUMN}{part}": component for part, component in self.columns.items()}
        self.inputs: dict[str, Block] = {"kind": self.kind, "example": self.example, "upload": self.upload}
        """Components by the name of their value."""
        self.inputs |= hub | columns

    def show(self, kind: str) -> Updates:
        """Return updates that show the components of one kind alone."""
        return {component: gr.update(visible=name == kind) for name, component in self.sources.items()}

    def of_run(self, config: TrainConfig, examples: list[str]) -> Updates:
        """Return updates with the rows of a run; `examples` are the names of those that fit its tab."""
        data, menu = Path(config.data), partial(gr.update, choices=examples)
        if config.hub:
            rows = {self.kind: "hub", self.example: menu(), self.upload: None}
        elif data.name in examples and _is_equal(page_files.find(data.name), data):
            rows = {self.kind: "example", self.example: menu(value=data.name), self.upload: None}
        else:
            copy = page_files.page_copy(data, data.name)
            rows = {self.kind: "upload", self.example: menu(value=None), self.upload: copy}
        mapping = {**config.columns, **config.mapping}
        columns = {
            menu: gr.update(choices=[name] if (name := mapping.get(part)) else [], value=name, visible=bool(name))
            for part, menu in self.columns.items()
        }
        return rows | self.hub.values(config.hub or {}, config.held_out_split or "") | columns


class TrainForm:
    """The components whose values make the configuration of a run, placed where it is constructed."""

    def __init__(self, context: Context) -> None:
        """Place the components."""
        plugins = context.learners()
        tabs = [(plugin.say(plugin.title), plugin.name) for plugin in plugins]
        self.tab = gr.Dropdown(tabs, value=tabs[0][1], label=t("train.tab"), interactive=True, filterable=False)
        self.rows = RowsForm(context, plugins[0])
        name = gr.Textbox(label=t("train.name"), info=t("train.name_info"), max_lines=1)
        promote = gr.Checkbox(value=True, label=t("train.promote"))
        self.preset = settings_form.place_presets()
        base, self.bases = settings_form.place_base()
        with gr.Accordion(t("train.advanced"), open=False):
            self.hyperparameters = settings_form.place_hyperparameters()
            """The components of the settings that a preset has."""
        own = {"name": name, "promote": promote, "model": base, "held_out_data": self.rows.held_out}
        self.fields: dict[str, Component] = {**own, **self.hyperparameters}
        """The components that stand for a field of the configuration, by its name."""
        self.inputs: dict[str, Block] = {"tab": self.tab, **self.rows.inputs, **self.fields}
        """Every component by the name of its value."""


class RowsReport:
    """The report on the chosen rows, placed where it is constructed, and its handlers."""

    def __init__(self, context: Context, poll: PagePoll, form: TrainForm) -> None:
        """Place the report."""
        self._context, self._menus, self._name = context, form.rows.columns, form.fields["name"]
        self.html = gr.HTML("", elem_classes="g-list")
        self.bad = gr.Button(t("report.bad_rows"), size="sm", visible=False)
        """Offers the rows that are left out, where there are any."""
        self._awaited = gr.State("")
        """The base that the report waits for, if it does."""
        self.event: dict[str, Any] = {
            "inputs_kwargs": form.inputs,
            "outputs": [self.html, *self._menus.values(), self._name, self.bad, self._awaited],
            "trigger_mode": "always_last",  # a file chosen while another is being read must not be lost
            "api_visibility": "private",
        }
        """Options of events whose handler reports."""
        page_files.download(self.bad, context.allow(Action.TRAIN, self._bad_rows), inputs_kwargs=form.inputs)
        arrived = poll.signal()
        poll.add(LiveView([self._awaited], [arrived], self._arrived, lambda *of: [self._arrived(*of)], Action.TRAIN))
        again = context.allow(Action.TRAIN, self._report_again, silently=True)
        arrived.change(again, **{**ASKED, **self.event, "inputs_kwargs": {"base": arrived, **form.inputs}})

    def look(self, request: gr.Request, tab: str, **values: Any) -> Iterator[Updates]:  # noqa: ANN401
        """Report on the chosen rows, with the columns that the user has chosen."""
        yield from self._report(words(request), tab, values, keep=True)

    def guess(self, request: gr.Request, tab: str, **values: Any) -> Iterator[Updates]:  # noqa: ANN401
        """Report on other rows: guess their columns, and suggest a name."""
        yield from self._report(words(request), tab, values, keep=False)

    def _report(self, say: Words, tab: str, values: Values, keep: bool) -> Iterator[Updates]:
        path = None
        with suppress(NotFetched):
            path = chosen_file(self._context, values)
        if path is None:
            hidden = dict.fromkeys((*self._menus.values(), self.bad), gr.update(visible=False))
            yield {self.html: Html(""), **hidden, self._awaited: ""}
            return
        name = {} if keep else {self._name: suggested_name(path)}
        try:
            for found in self._context.runs.look(self._inspection(tab, path, values, keep)):
                columns = {
                    menu: gr.update(
                        choices=[*found.columns], value=found.mapping.get(part), visible=part in found.mapping
                    )
                    for part, menu in self._menus.items()
                }
                html = report_view.report(say, found)
                awaited = self._context.spec(tab).model if found.untokenized == LATER else ""
                bad = gr.update(visible=found.left_out > 0)
                yield {self.html: html, **columns, **name, self.bad: bad, self._awaited: awaited}
        except GraftError as error:
            columns = {} if keep else self._choosable(tab, error)
            # Where columns are to be chosen, no row was left out.
            bad = gr.update(visible=not isinstance(error, UnknownColumns))
            yield {self.html: failure(error), **columns, **name, self.bad: bad, self._awaited: ""}

    def _choosable(self, tab: str, error: GraftError) -> Updates:
        """Return updates that offer the columns of a file in which they could not be guessed."""
        there = [*error.columns] if isinstance(error, UnknownColumns) else []
        columns = self._context.spec(tab).columns
        chats = bool(columns and columns.messages)
        return {
            menu: gr.update(choices=there, value=None, visible=bool(there) and (part != "messages" or chats))
            for part, menu in self._menus.items()
        }

    def _inspection(self, tab: str, path: Path, values: Values, keep: bool = True) -> Inspection:
        longest = values.get("max_length")
        length = round(longest) if isinstance(longest, int | float) and longest >= 1 else 512
        mapping = chosen_columns(values) if keep else {}
        held_out = held_out_file(self._context, values, path)
        return Inspection(path, self._context.spec(tab), mapping, length, held_out)

    def _bad_rows(self, tab: str, **values: Any) -> str:  # noqa: ANN401
        """Write every row that is left out into a file of Gradio's own cache."""
        path = chosen_file(self._context, values)
        if path is None:
            raise DataError("There are no rows to look at.", "", "Choose an example or upload a file.")
        with tempfile.TemporaryDirectory(prefix="graft-bad-") as folder:
            out = Path(folder) / "rows"
            self._context.runs.write_bad_rows(self._inspection(tab, path, values), out)
            name = re.sub(r"[^\w.-]", "_", path.stem)[:80]
            return cache_file(out.read_bytes(), f"{name}-left-out.jsonl")

    def _arrived(self, say: Words, base: str) -> str:
        """Return the base that the report waits for once it is on this computer, else an empty text."""
        phases = {status.id: status.phase for status in self._context.pool.status()}
        return base if base and phases.get(base) in ("load", "ready") else ""

    def _report_again(self, request: gr.Request, base: str, **values: Any) -> Iterator[Updates]:  # noqa: ANN401
        yield from self.look(request, **values) if base else [{self._awaited: gr.skip()}]


def _is_equal(example: Path, data: Path) -> bool:
    with suppress(OSError):
        return filecmp.cmp(example, data, shallow=False)
    return False


def chosen_file(context: Context, values: Values) -> Path | None:
    """Return the file to learn from, or None where nothing is chosen.

    Raises `DataError` for what cannot be one, `NotFetched` for rows of the Hub that are not here yet.
    """
    if values["kind"] == "hub":
        id, config, split = (values.get(f"{HUB}{name}") for name in ("id", "config", "split"))
        return hub_form.hub(context).find(hub_form.place_of(id, config, split)) if id else None
    if values["kind"] == "upload":
        return uploaded(context, values.get("upload"))
    return page_files.find(values["example"]) if values.get("example") else None


def held_out_split(values: Values) -> str:
    """Return the split of a data set of the Hub that is chosen to compare on; empty for none."""
    return (values.get(f"{HUB}held_out") or "") if values["kind"] == "hub" else ""


def held_out_file(context: Context, values: Values, path: Path) -> Path | None:
    """Return the rows to compare on: an uploaded file or another split of the Hub; None for a share of `path`'s own.

    Raises `DataError`, also where both are chosen.
    """
    split, own = held_out_split(values), values.get("held_out_data")
    if split and own:
        next_ = "Remove the file, or take a share of these rows under the data set."
        raise DataError("Held-out rows are chosen twice.", f"There is a file and the split {split}.", next_)
    return hub_form.hub(context).find(beside(path, split)) if split else uploaded(context, own)


def uploaded(context: Context, name: str | None) -> Path | None:
    """Return the path of an uploaded file; raises `DataError` for one that cannot hold rows."""
    if not name:
        return None
    path = Path(name)
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path.name} is not a table of rows.", "", f"Use one of {', '.join(FORMATS)}.")
    if path.stat().st_size > context.settings.upload_bytes:
        most = f"At most {context.settings.upload_bytes / 1e6:,.0f} MB (GRAFT_UPLOAD_MB)."
        raise DataError(f"{path.name} is too large.", most, "Train from the command line instead.")
    return path


def chosen_columns(values: Values) -> dict[str, str]:
    """Return the column for each part of a row, where one is chosen."""
    chosen = {part: values.get(f"{COLUMN}{part}") for part in PARTS}
    return {part: column for part, column in chosen.items() if column}


def suggested_name(path: Path) -> str:
    """Return a name for the adapter, made of the file's or the data set's."""
    stem = title(path).partition(" ")[0].rpartition("/")[2] if is_selection(path) else path.stem
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:40] or "mine"
