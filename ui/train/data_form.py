"""Train: where rows come from, and which of their columns are learned from."""

from __future__ import annotations

import filecmp
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import DataError, GraftError
from plugins import TaskPlugin
from tasks import TabSpec
from training.config import TrainConfig
from training.data.files.formats import FORMATS, is_selection, title
from training.data.files.hub_dataset import NotFetched
from training.data.inspect.inspect_client import Inspection
from training.data.rows import PARTS, UnknownColumns
from ui.context import Context
from ui.html.tags import Html, failure
from ui.i18n import Words, t, words
from ui.pulse import LiveView, PagePoll
from ui.train import examples, hub_form, report_view
from ui.train.hub_form import HubForm
from ui.train.run_panel import page_copy
from ui.web.access import Action
from ui.web.gradio_private import cache_file

KINDS = ("example", "upload", "hub")


@dataclass(frozen=True)
class RowsForm:
    """The components that say where rows come from, in the order in which handlers receive them; `held_out` apart."""

    kind: gr.Radio
    example: gr.Dropdown
    upload: gr.File
    hub: HubForm
    columns: Sequence[gr.Dropdown]
    held_out: gr.File
    group: gr.Column
    """What is around `hub`."""

    @property
    def place(self) -> list[Component]:
        """Those that name rows; their values make a `Where`."""
        return [self.kind, self.example, self.upload, *self.hub.all]

    @property
    def all(self) -> list[Component]:
        """Everything."""
        return [*self.place, *self.columns]


@dataclass(frozen=True)
class Where:
    """The values of the components that name rows."""

    kind: str | None = "example"
    example: str | None = None
    upload: str | None = None
    id: str | None = ""
    config: str | None = None
    split: str | None = None
    held_out: str | None = None
    """The split to compare on, where it is one of the Hub."""


PLACE = len(Where.__dataclass_fields__)
"""How many values those are."""
Look = Callable[..., Iterator[list[Any]]]
"""A handler that looks into the chosen rows."""
COUNT = PLACE + len(PARTS)
"""How many values the form of rows has."""


def place_rows(plugin: TaskPlugin | None) -> RowsForm:
    """Place the components, for the tab that is chosen first."""
    found = examples.fitting(plugin) if plugin else []
    choices = [(t(f"rows.{kind}"), kind) for kind in KINDS]
    kind = gr.Radio(choices, value="example", label=t("rows.from"), elem_classes="g-from")
    example = gr.Dropdown(found, value=next(iter(found), None), label=t("train.example"), interactive=True,
                          allow_custom_value=True)  # fmt: skip
    upload = gr.File(file_types=list(FORMATS), file_count="single", label=t("train.upload"), height=130, visible=False,
                     elem_classes="g-upload")  # fmt: skip
    with gr.Column(visible=False, elem_classes="g-hub") as group:
        hub = hub_form.place_hub()
    with gr.Row(elem_classes="g-mapping"):
        columns = [gr.Dropdown([], label=t(f"train.column_{part}"), visible=False, interactive=True, min_width=120,
                               allow_custom_value=True) for part in PARTS]  # fmt: skip
    with gr.Accordion(t("train.held_out_title"), open=False):
        held_out = gr.File(file_types=list(FORMATS), file_count="single", label=t("train.held_out_file"), height=130,
                           elem_classes="g-upload")  # fmt: skip
    return RowsForm(kind, example, upload, hub, columns, held_out, group)


def show(chosen: str) -> list[Any]:
    """The parts of the form, of which only that of the chosen kind is seen."""
    return [gr.update(visible=kind == chosen) for kind in KINDS]


def inspect(context: Context, keep: bool) -> Look:
    """Look into the chosen rows; `keep` takes the columns as the user set them, otherwise they are guessed.

    Given last is the base that the report waits for, if it does.
    """

    def look(request: gr.Request, tab: str, *values: Any) -> Iterator[list[Any]]:  # noqa: ANN401
        unchanged = [gr.skip()] * (len(PARTS) + 1)
        say, bad = words(request), None
        try:
            path = chosen_file(context, divide(values)[0])
        except NotFetched:
            path = None
        if path is None:
            yield [Html(""), *([gr.update(visible=False)] * len(PARTS)), gr.skip(), gr.update(visible=False), ""]
            return
        try:
            for found in context.runs.look(_inspection(context, tab, path, values, keep)):
                bad = gr.update(visible=found.left_out > 0)
                more = not (found.tokens or found.untokenized)
                shown = [gr.update(choices=list(found.columns), value=found.mapping.get(part),
                                   visible=part in found.mapping) for part in PARTS]  # fmt: skip
                name = gr.skip() if keep else suggested_name(path)
                waits = context.spec(tab).model if found.untokenized == report_view.LATER else ""
                yield [report_view.report(say, found, more), *shown, name, bad, waits]
        except GraftError as error:
            there = list(error.columns) if isinstance(error, UnknownColumns) else []
            columns = unchanged if keep else [*_choosable(context.spec(tab), there), suggested_name(path)]
            # Where columns are to be chosen, no row was left out.
            yield [failure(error), *columns, gr.update(visible=not isinstance(error, UnknownColumns)), ""]

    return look


def follow(
    context: Context, pulse: PagePoll, waits: gr.State, here: gr.Textbox, look: Look, taken: list[Component],
    outputs: list[Any],
) -> None:  # fmt: skip
    """Look again, with `look`, once the base is on this computer that the report `waits` for; `here` then names it.

    `here` is a component that no tab hides: the browser tells of changes in what it draws alone.
    """

    def arrived(say: Words, base: str) -> str:
        phases = {status.id: status.phase for status in context.pool.status()}
        return base if base and phases.get(base) in ("load", "ready") else ""

    def again(request: gr.Request, base: str, *values: Any) -> Iterator[list[Any]]:  # noqa: ANN401
        if base:
            yield from look(request, *values)
        else:
            yield [gr.skip()] * len(outputs)

    pulse.add(LiveView([waits], [here], arrived, lambda say, base: [arrived(say, base)], Action.TRAIN))
    here.change(context.allow(Action.TRAIN, again, silently=True), [here, *taken], outputs, api_visibility="private",
                show_progress="hidden", trigger_mode="always_last")  # fmt: skip


def bad_rows(context: Context, component: gr.File) -> Any:  # noqa: ANN401
    """Every row that is left out, in a file of Gradio's own cache, which it serves and sweeps."""

    def write(tab: str, *values: Any) -> str:  # noqa: ANN401
        path = chosen_file(context, divide(values)[0])
        if path is None:
            raise DataError("There are no rows to look at.", "", "Choose an example or upload a file.")
        with tempfile.TemporaryDirectory(prefix="graft-bad-") as folder:
            out = Path(folder) / "rows"
            context.runs.write_bad_rows(_inspection(context, tab, path, values, keep=True), out)
            name = re.sub(r"[^\w.-]", "_", path.stem)[:80]
            return cache_file(out.read_bytes(), f"{name}-left-out.jsonl")

    return write


def _inspection(context: Context, tab: str, path: Path, values: Sequence[Any], keep: bool) -> Inspection:
    """What is asked of rows; `values` are those of the form, then the longest length and held-out rows, if given."""
    (where, columns), (longest, own) = divide(values), (*values[COUNT:], None, None)[:2]
    chosen = {part: column for part, column in zip(PARTS, columns, strict=False) if column} if keep else {}
    length = round(longest) if isinstance(longest, int | float) and longest >= 1 else 512
    return Inspection(path, context.spec(tab), chosen, length, held_out_file(context, where, path, own))


def divide(values: Sequence[Any]) -> tuple[Where, Sequence[Any]]:
    """The values of `RowsForm.all` as those that name rows, and the columns."""
    return Where(*values[:PLACE]), values[PLACE:COUNT]


def chosen_file(context: Context, where: Where) -> Path | None:
    """The file to learn from, or None where nothing is chosen.

    Raises `DataError` for what cannot be one, `NotFetched` for rows of the Hub that are not here yet.
    """
    if where.kind == "hub":
        place = hub_form.place_of(where.id, where.config, where.split) if where.id else None
        return hub_form.hub(context).find(place) if place else None
    if where.kind == "upload":
        return uploaded(context, where.upload)
    return examples.find(where.example) if where.example else None


def held_out_file(context: Context, where: Where, path: Path, own: str | None) -> Path | None:
    """The rows to compare on: an uploaded file, or another split of the Hub; None for a share of `path`'s own.

    Raises `DataError`, also where both are chosen.
    """
    split = where.held_out if where.kind == "hub" else None
    if split and own:
        next_ = "Remove the file, or take a share of these rows under the data set."
        raise DataError("Held-out rows are chosen twice.", f"There is a file and the split {split}.", next_)
    return hub_form.held_out_of(context, path, split) if split else uploaded(context, own)


def uploaded(context: Context, name: str | None) -> Path | None:
    """A file that was uploaded; raises `DataError` for one that cannot be of rows."""
    if not name:
        return None
    path = Path(name)
    if path.suffix.lower() not in FORMATS:
        raise DataError(f"{path.name} is not a table of rows.", "", f"Use one of {', '.join(FORMATS)}.")
    if path.stat().st_size > context.settings.upload_bytes:
        most = f"At most {context.settings.upload_bytes / 1e6:,.0f} MB"
        raise DataError(
            f"{path.name} is too large.", f"{most} (GRAFT_UPLOAD_MB).", "Train from the command line instead."
        )
    return path


def of_run(config: TrainConfig, found: Sequence[str]) -> list[Any]:
    """Values of `RowsForm.place` with the rows of a run; `found` are the examples that fit its tab."""
    if config.hub:
        return ["hub", gr.update(choices=found), None, *hub_form.values(config.hub, config.held_out_split)]
    data = Path(config.data)
    if data.name in found and same(examples.find(data.name), data):
        return ["example", gr.update(choices=found, value=data.name), None, *hub_form.values({})]
    return ["upload", gr.update(choices=found, value=None), page_copy(data, data.name), *hub_form.values({})]


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same."""
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return False


def chosen_columns(columns: Sequence[str | None]) -> dict[str, str]:
    """The column for each part of a row, where one was chosen."""
    return {part: column for part, column in zip(PARTS, columns, strict=True) if column}


def shown_columns(mapping: Mapping[str, str]) -> list[Any]:
    """The choices of columns as a run has them."""
    return [gr.update(choices=[name] if (name := mapping.get(part)) else [], value=name, visible=bool(name))
            for part in PARTS]  # fmt: skip


def suggested_name(path: Path) -> str:
    """A name for the adapter, made of the file's or the data set's."""
    stem = title(path).partition(" ")[0].rpartition("/")[2] if is_selection(path) else path.stem
    return re.sub(r"[^a-z0-9_-]+", "-", stem.lower()).strip("-_")[:40] or "mine"


def _choosable(spec: TabSpec, found: list[str]) -> list[Any]:
    """The file's own columns to choose from, for a file in which they could not be guessed."""
    chats = bool(spec.columns and spec.columns.messages)
    return [
        gr.update(choices=found, value=None, visible=bool(found) and (part != "messages" or chats)) for part in PARTS
    ]
