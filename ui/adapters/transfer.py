"""Adapters in and out by child processes: a zip made elsewhere becomes a version, and a version a merged model.

The page reads neither zip. Each child prints its phases, which the page shows as words and a bar.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import gradio as gr

from errors import AdapterError, BusyError, GraftError, InputError
from settings import child_environment
from store import processes
from store.adapters import check_name
from tasks import TASKS
from training.cli.transfer_commands import ONE_LINE
from ui.context import Context
from ui.html.tags import Html, bar, div, failure, notice, span, tag
from ui.i18n import Words, t, words
from ui.pulse import QUIET, Updates
from ui.web.access import Action
from ui.web.gradio_private import cache_folder

IMPORT_PHASES = ("unpack", "base", "verify", "publish")
"""Lines that the import prints before the name of the version."""
MERGE_PHASES = ("base", "merge", "write", "pack")
_MERGING = threading.Lock()


class ImportForm:
    """The form that takes in an adapter, placed where it is constructed, and its handlers."""

    def __init__(self, context: Context, menus: Mapping[str, gr.Dropdown]) -> None:
        """Place the form.

        `menus` choose the version of each tab that is looked at, by the tab's name: the new version is chosen there.
        """
        self._context, self._menus = context, menus
        tabs = [(plugin.say(plugin.title), plugin.name) for plugin in context.learners()]
        first = tabs[0][1]
        with gr.Accordion(t("import.title"), open=False, elem_classes="g-import"):
            gr.Markdown(t("import.about"), elem_classes="g-about")
            with gr.Row(elem_classes="g-columns"):
                with gr.Column():
                    file = gr.File(file_types=[".zip"], label=t("import.file"), height=130, elem_classes="g-upload")
                with gr.Column():
                    tab = gr.Dropdown(tabs, value=first, label=t("import.tab"), interactive=True, filterable=False)
                    name = gr.Textbox(label=t("train.name"), info=t("train.name_info"), max_lines=1)
                    labels = gr.Textbox(
                        label=t("import.labels"),
                        info=t("import.labels_info"),
                        max_lines=1,
                        visible=self._has_labels(first),
                    )
            take = gr.Button(t("import.take"), variant="primary")
            self.message = gr.HTML("", elem_classes="g-list")
        tab.change(context.allow(Action.KEEP, self._show_labels, silently=True), tab, labels, **QUIET)
        take.click(
            context.allow(Action.KEEP, self.take_in),
            inputs_kwargs={"file": file, "tab": tab, "name": name, "labels": labels},
            outputs=[self.message, *menus.values()],
            show_progress="hidden",
            api_visibility="private",
            trigger_mode="once",
        )

    def take_in(
        self, request: gr.Request, file: str | None, tab: str | None, name: str | None, labels: str | None
    ) -> Iterator[Updates]:
        """Import the zip; yields each phase, and at last the new version, or why there is none."""
        say, spec, ref = words(request), self._context.spec(tab or ""), ""
        if not file:
            raise InputError("There is no file.", "Nothing was chosen.", "Choose the zip of a PEFT adapter.")
        own = f"--plugin={spec.name}", f"--name={check_name((name or '').strip())}", f"--labels={labels or ''}"
        yield {self.message: _phase(say(f"import.{IMPORT_PHASES[0]}"), IMPORT_PHASES, IMPORT_PHASES[0])}
        try:
            for ref in _lines(["import", str(file), *own], self._context.settings.home, say("import.refused")):
                if ref in IMPORT_PHASES:
                    yield {self.message: _phase(say(f"import.{ref}"), IMPORT_PHASES, ref)}
        except AdapterError as error:
            yield {self.message: failure(error)}
            return
        self._context.versions_changed()
        refs = [version.ref for version in self._context.adapters.versions(spec.name)]
        done = notice(tag("strong", say("import.done", version=ref)), tag("p", say("import.next")))
        yield {self.message: done, self._menus[spec.name]: gr.update(choices=refs, value=ref, visible=True)}

    def _show_labels(self, tab: str | None) -> Updates:
        return gr.update(visible=self._has_labels(tab))

    def _has_labels(self, tab: str | None) -> bool:
        return bool(tab) and TASKS[self._context.spec(str(tab)).task].answers == "label"


def merged(say: Words, ref: str, home: Path) -> Iterator[tuple[Html, str | None]]:
    """Merge a version into its base; yields each phase as HTML, and at last the path of a zip that Gradio serves.

    One model is made at a time; closing the iterator ends the child. Raises `GraftError`.
    """
    if not _MERGING.acquire(blocking=False):
        raise BusyError("Another merged model is being made.", "Each needs as much memory as its base.", "Wait for it.")
    try:
        folder = cache_folder() / secrets.token_hex(16)
        folder.mkdir(parents=True)
        target = folder / f"{ref.replace('@', '-')}-merged.zip"
        yield _phase(say(f"merged.{MERGE_PHASES[0]}", version=ref), MERGE_PHASES, MERGE_PHASES[0]), None
        for line in _lines(["export", ref, str(target), "--merged"], home, "The merged model could not be made."):
            if line in MERGE_PHASES:
                yield _phase(say(f"merged.{line}", version=ref), MERGE_PHASES, line), None
        yield Html(""), str(target)
    finally:
        _MERGING.release()


def _lines(arguments: Sequence[str], home: Path, refused: str) -> Iterator[str]:
    """Run `python -m training` and yield its lines; raises `AdapterError` that begins with `refused` where it fails."""
    died = AdapterError(refused, "Its process ended early; there may not be enough memory.")
    lines = processes.lines(
        processes.python("training", *arguments, ONE_LINE),
        lambda facts: AdapterError(refused, str(GraftError.from_dict(facts))),
        died,
        child_environment(GRAFT_HOME=str(home.absolute())),
    )
    return map(str.strip, lines)


def _phase(words: str, phases: Sequence[str], phase: str) -> Html:
    """Show one of several phases as words and a bar."""
    return div("g-loading", span("", words), bar((phases.index(phase) + 0.5) / len(phases)))
