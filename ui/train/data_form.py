"""Train: where rows come from, and which of their columns are learned from.

Handlers receive the form's values by name, as `RowsForm.inputs` names them, and return updates by component.
"""

from __future__ import annotations

import filecmp
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from errors import DataError, GraftError
from plugins import TaskPlugin
from tasks import TabSpec
from training.config import HYPERPARAMETERS, TrainConfig
from training.data.files.formats import FORMATS, is_selection, title
from training.data.files.hub_dataset import NotFetched, beside
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER
from training.data.rows import PARTS, UnknownColumns
from ui.context import Context
from ui.html.tags import Html, failure
from ui.i18n import Words, t, words
from ui.pulse import ASKED, LiveView, PagePoll, Updates
from ui.train import hub_form, page_files, report_view
from ui.train.hub_form import HubForm
from ui.web.access import Action
from ui.web.gradio_private import cache_file

KINDS = ("example", "upload", "hub")
HUB, COLUMN = "hub_", "column_"
"""Prefixes of the names of values: `hub_id`, `column_text`."""
Values = Mapping[str, Any]
"""Values of the form by name."""
Look = Callable[..., Iterator[Updates]]
"""A handler that reports on the chosen rows."""


@dataclass(frozen=True)
class RowsForm:
    """The components that say where rows come from and which columns are learned from."""

    kind: gr.Radio
    example: gr.Dropdown
    upload: gr.File
    hub: HubForm
    hub_group: gr.Column
    columns: Mapping[str, gr.Dropdown]
    """A menu for each part of a row."""
    held_out: gr.File

    @property
    def inputs(self) -> dict[str, Block]:
        """Components by the name of their value."""
        hub = {f"{HUB}{name}": component for name, component in self.hub.inputs.items()}
        columns = {f"{COLUMN}{part}": component for part, component in self.columns.items()}
        return {"kind": self.kind, "example": self.example, "upload": self.upload, **hub, **columns}

    def show(self, kind: str) -> Updates:
        """Return updates that show the components of one kind alone."""
        shown = dict(zip(KINDS, (self.example, self.upload, self.hub_group), strict=True))
        return {component: gr.update(visible=name == kind) for name, component in shown.items()}

    def of_run(self, config: TrainConfig, found: Sequence[str]) -> Updates:
        """Return updates with the rows of a run; `found` are the names of the examples that fit its tab."""
        data, menu = Path(config.data), partial(gr.update, choices=found)
        if config.hub:
            rows = {self.kind: "hub", self.example: menu(), self.upload: None}
        elif data.name in found and same(page_files.find(data.name), data):
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


@dataclass(frozen=True)
class TrainForm:
    """The components whose values make the configuration of a run."""

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
    def hyperparameters(self) -> dict[str, Component]:
        """The components of the settings that a preset has."""
        return {name: self.fields[name] for name in HYPERPARAMETERS}


@dataclass(frozen=True)
class ReportOutputs:
    """The components that a report on the chosen rows updates."""

    rows: RowsForm
    html: gr.HTML
    name: Component
    bad: gr.Button
    """Offers the rows that are left out, where there are any."""
    waits: gr.State
    """The base that the report waits for, if it does."""

    @property
    def all(self) -> list[Any]:
        """Every component."""
        return [self.html, *self.rows.columns.values(), self.name, self.bad, self.waits]


def place_rows(plugin: TaskPlugin | None) -> RowsForm:
    """Place the components, for the tab that is chosen first."""
    found = page_files.fitting(plugin) if plugin else []
    kind = gr.Radio(
        [(t(f"rows.{kind}"), kind) for kind in KINDS], value="example", label=t("rows.from"), elem_classes="g-from"
    )
    menu = partial(gr.Dropdown, interactive=True, allow_custom_value=True)
    file = partial(gr.File, file_types=list(FORMATS), file_count="single", height=130, elem_classes="g-upload")
    example = menu(found, value=next(iter(found), None), label=t("train.example"))
    upload = file(label=t("train.upload"), visible=False)
    with gr.Column(visible=False, elem_classes="g-hub") as group:
        hub = hub_form.place_hub()
    with gr.Row(elem_classes="g-mapping"):
        columns = {part: menu([], label=t(f"train.column_{part}"), visible=False, min_width=120) for part in PARTS}
    with gr.Accordion(t("train.held_out_title"), open=False):
        held_out = file(label=t("train.held_out_file"))
    return RowsForm(kind, example, upload, hub, group, columns, held_out)


def inspect(context: Context, shown: ReportOutputs, keep: bool) -> Look:
    """Return the handler that reports on the chosen rows.

    With `keep`, columns are as the user set them; otherwise they are guessed, and a name is suggested.
    """
    menus = shown.rows.columns

    def look(request: gr.Request, tab: str, **values: Any) -> Iterator[Updates]:  # noqa: ANN401
        say, path = words(request), None
        with suppress(NotFetched):
            path = chosen_file(context, values)
        if path is None:
            hidden = dict.fromkeys((*menus.values(), shown.bad), gr.update(visible=False))
            yield {shown.html: Html(""), **hidden, shown.waits: ""}
            return
        name = {} if keep else {shown.name: suggested_name(path)}
        try:
            for found in context.runs.look(_inspection(context, tab, path, values, keep)):
                choices = [*found.columns]
                columns = {
                    menu: gr.update(choices=choices, value=found.mapping.get(part), visible=part in found.mapping)
                    for part, menu in menus.items()
                }
                html = report_view.report(say, found, not (found.tokens or found.untokenized))
                waits = context.spec(tab).model if found.untokenized == LATER else ""
                bad = gr.update(visible=found.left_out > 0)
                yield {shown.html: html, **columns, **name, shown.bad: bad, shown.waits: waits}
        except GraftError as error:
            there = [*error.columns] if isinstance(error, UnknownColumns) else []
            columns = {} if keep else _choosable(menus, context.spec(tab), there)
            # Where columns are to be chosen, no row was left out.
            bad = gr.update(visible=not isinstance(error, UnknownColumns))
            yield {shown.html: failure(error), **columns, **name, shown.bad: bad, shown.waits: ""}

    return look


def follow(
    context: Context, poll: PagePoll, shown: ReportOutputs, here: gr.Textbox, look: Look, inputs: dict[str, Block]
) -> None:
    """Report again, with `look`, once the base that the report waits for is on this computer; `here` then names it.

    `here` is a component that no tab hides: the browser reports changes only of what it draws.
    """

    def arrived(say: Words, base: str) -> str:
        phases = {status.id: status.phase for status in context.pool.status()}
        return base if base and phases.get(base) in ("load", "ready") else ""

    def again(request: gr.Request, base: str, **values: Any) -> Iterator[Updates]:  # noqa: ANN401
        yield from look(request, **values) if base else [{shown.waits: gr.skip()}]

    poll.add(LiveView([shown.waits], [here], arrived, lambda say, base: [arrived(say, base)], Action.TRAIN))
    here.change(
        context.allow(Action.TRAIN, again, silently=True),
        inputs_kwargs={"base": here, **inputs},
        outputs=shown.all,
        trigger_mode="always_last",
        **ASKED,
    )


def bad_rows(context: Context, component: gr.File) -> Callable[..., str]:
    """Return the handler that writes every row that is left out into a file of Gradio's own cache."""

    def write(tab: str, **values: Any) -> str:  # noqa: ANN401
        path = chosen_file(context, values)
        if path is None:
            raise DataError("There are no rows to look at.", "", "Choose an example or upload a file.")
        with tempfile.TemporaryDirectory(prefix="graft-bad-") as folder:
            out = Path(folder) / "rows"
            context.runs.write_bad_rows(_inspection(context, tab, path, values, keep=True), out)
            name = re.sub(r"[^\w.-]", "_", path.stem)[:80]
            return cache_file(out.read_bytes(), f"{name}-left-out.jsonl")

    return write


def _inspection(context: Context, tab: str, path: Path, values: Values, keep: bool) -> Inspection:
    longest = values.get("max_length")
    length = round(longest) if isinstance(longest, int | float) and longest >= 1 else 512
    mapping = chosen_columns(values) if keep else {}
    return Inspection(path, context.spec(tab), mapping, length, held_out_file(context, values, path))


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


def same(one: Path, other: Path) -> bool:
    """Return whether two files have the same bytes."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def chosen_columns(values: Values) -> dict[str, str]:
    """Return the column for each part of a row, where one is chosen."""
    chosen = {part: values.get(f"{COLUMN}{part}") for part in PARTS}
    return {part: column for part, column in chosen.items() if column}


def suggested_name(path: Path) -> str:
    """Return a name for the adapter, made of the file's or the data set's."""
    stem = title(path).partition(" ")[0].rpartition("/")[2] if is_selection(path) else path.stem
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:40] or "mine"


def _choosable(menus: Mapping[str, gr.Dropdown], spec: TabSpec, columns: list[str]) -> Updates:
    """Return updates that offer the columns of a file in which they could not be guessed."""
    chats = bool(spec.columns and spec.columns.messages)
    return {
        menu: gr.update(choices=columns, value=None, visible=bool(columns) and (part != "messages" or chats))
        for part, menu in menus.items()
    }
