"""Train: where rows come from, and which of their columns are learned from."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.processing_utils import save_bytes_to_cache

from errors import DataError, GraftError
from plugins import TaskPlugin
from tasks import TabSpec
from training.content import FORMATS
from training.inspection import Inspection
from training.rows import PARTS
from ui import examples, report_view
from ui.context import Context
from ui.render import Html, failure
from ui.strings import t, words

LARGEST = 50 * 2**20
"""Bytes of an uploaded file."""


@dataclass(frozen=True)
class RowsForm:
    """The components that say where rows come from, in the order in which handlers receive them; `held_out` apart."""

    example: gr.Dropdown
    upload: gr.File
    columns: Sequence[gr.Dropdown]
    held_out: gr.File

    @property
    def place(self) -> list[Component]:
        """Those that name a file."""
        return [self.example, self.upload]

    @property
    def all(self) -> list[Component]:
        """Everything."""
        return [*self.place, *self.columns]


def place_rows(plugin: TaskPlugin | None) -> RowsForm:
    """Place the components, for the tab that is chosen first."""
    found = examples.fitting(plugin) if plugin else []
    example = gr.Dropdown(found, value=next(iter(found), None), label=t("train.example"), interactive=True,
                          allow_custom_value=True)  # fmt: skip
    upload = gr.File(file_types=list(FORMATS), file_count="single", label=t("train.upload"), height=130,
                     elem_classes="g-upload")  # fmt: skip
    with gr.Row(elem_classes="g-mapping"):
        columns = [gr.Dropdown([], label=t(f"train.column_{part}"), visible=False, interactive=True, min_width=120,
                               allow_custom_value=True) for part in PARTS]  # fmt: skip
    with gr.Accordion(t("train.held_out_title"), open=False):
        held_out = gr.File(file_types=list(FORMATS), file_count="single", label=t("train.held_out_file"), height=130,
                           elem_classes="g-upload")  # fmt: skip
    return RowsForm(example, upload, columns, held_out)


def inspect(context: Context, keep: bool) -> Any:  # noqa: ANN401 - a handler of Gradio's
    """Look into the chosen file; `keep` takes the columns as the user set them, otherwise they are guessed."""

    def look(
        request: gr.Request, tab: str, example: str | None, upload: str | None, *rest: Any,  # noqa: ANN401
    ) -> Iterator[list[Any]]:  # fmt: skip
        context.require_training()
        unchanged = [gr.skip()] * (len(PARTS) + 1)
        say, bad = words(request), None
        path = chosen_file(example, upload)
        if path is None:
            yield [Html(""), *([gr.update(visible=False)] * len(PARTS)), gr.skip(), gr.update(visible=False)]
            return
        try:
            for found in context.runs.look(_inspection(context, tab, path, rest, keep)):
                bad = gr.update(visible=found.left_out > 0)
                more = not (found.tokens or found.untokenized)
                shown = [gr.update(choices=list(found.columns), value=found.mapping.get(part),
                                   visible=part in found.mapping) for part in PARTS]  # fmt: skip
                yield [report_view.report(say, found, more), *shown, gr.skip() if keep else suggested_name(path), bad]
        except GraftError as error:
            columns = unchanged if keep else [*_choosable(context.spec(tab), path), suggested_name(path)]
            yield [failure(error), *columns, gr.update(visible=True)]

    return look


def bad_rows(context: Context, component: gr.File) -> Any:  # noqa: ANN401
    """Every row that is left out, in a file of Gradio's own cache, which it serves and sweeps."""

    def write(tab: str, example: str | None, upload: str | None, *rest: Any) -> str:  # noqa: ANN401
        context.require_training()
        path = chosen_file(example, upload)
        if path is None:
            raise DataError("There are no rows to look at.", "", "Choose an example or upload a file.")
        with tempfile.TemporaryDirectory(prefix="graft-bad-") as folder:
            out = Path(folder) / "rows"
            context.runs.write_bad_rows(_inspection(context, tab, path, rest, keep=True), out)
            name = re.sub(r"[^\w.-]", "_", path.stem)[:80]
            kept: str = save_bytes_to_cache(out.read_bytes(), f"{name}-left-out.jsonl", component.GRADIO_CACHE)
        return kept

    return write


def _inspection(context: Context, tab: str, path: Path, rest: Sequence[Any], keep: bool) -> Inspection:
    """What is asked of a file; `rest` are columns, the longest length and held-out rows, if they are given."""
    columns, longest, held_out = rest[: len(PARTS)], *(*rest[len(PARTS) :], None, None)[:2]
    chosen = {part: column for part, column in zip(PARTS, columns, strict=False) if column} if keep else {}
    length = round(longest) if isinstance(longest, int | float) and longest >= 1 else 512
    return Inspection(path, context.spec(tab), chosen, length, chosen_file(None, held_out))


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


def chosen_columns(columns: Sequence[str | None]) -> dict[str, str]:
    """The column for each part of a row, where one was chosen."""
    return {part: column for part, column in zip(PARTS, columns, strict=True) if column}


def shown_columns(mapping: Mapping[str, str]) -> list[Any]:
    """The choices of columns as a run has them."""
    return [gr.update(choices=[name] if (name := mapping.get(part)) else [], value=name, visible=bool(name))
            for part in PARTS]  # fmt: skip


def suggested_name(path: Path) -> str:
    """A name for the adapter, made of the file's."""
    return re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_")[:40] or "mine"


def _choosable(spec: TabSpec, path: Path) -> list[Any]:
    """The file's own columns to choose from, for a file in which they could not be guessed."""
    chats = bool(spec.columns and spec.columns.messages)
    found = examples.columns(path)
    return [
        gr.update(choices=found, value=None, visible=bool(found) and (part != "messages" or chats)) for part in PARTS
    ]
