"""Correction of an answer: the button "This is wrong", a form for the right answer, the list, and Teach.

A correction is made of the `Answer.record` of the last answer, whatever the components of the tab hold by then. Every
tab with columns has the form, where there can be an owner.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from errors import AdapterError, InputError
from plugins import TaskPlugin
from store.corrections import Correction, answered_row, as_jsonl
from tasks import TASKS
from training.runs import teach
from ui.context import Context
from ui.i18n import Words, request_words, t
from ui.pulse import ASKED, QUIET, LiveView, PagePoll
from ui.tab import corrections_view
from ui.train import page_files
from ui.web.access import Action
from ui.web.gradio_private import cache_file

Record = dict[str, Any]
"""An `Answer.record`: question (`row`), `answer`, `version` and `labels`."""
NOTHING = "There is nothing to correct.", "Nothing was answered on this page.", "Ask something."


def _hidden() -> Any:  # noqa: ANN401 - a Gradio update
    return gr.update(visible=False)


class Correct:
    """The components that correct an answer, and their handlers."""

    def __init__(self, context: Context, plugin: TaskPlugin, poll: PagePoll) -> None:
        """Place the components."""
        self._context, self._corrections, self._tab = context, context.corrections, plugin.name
        self._allow = partial(context.allow, Action.CORRECT)
        spec = context.spec(plugin.name)
        self._labels = TASKS[spec.task].answers == "label"
        self._columns = {k: v for k, v in vars(spec.columns).items() if v} if spec.columns else {}
        self.asked = gr.State(None)
        """The `Record` of the last answer; an output of the handler that answers."""
        self._editing = gr.State("")
        with gr.Column(elem_classes="g-teach"):
            self._wrong = gr.Button(t("teach.wrong"), size="sm", elem_classes="g-say")
            self._place_form()
            self._strip = gr.HTML("", elem_classes="g-list", js_on_load=corrections_view.GO)
            with gr.Row(elem_classes="g-buttons"):
                self._teach = gr.Button(t("teach.do"), variant="primary", size="sm", visible=False)
                self._undo = gr.Button(t("teach.undo"), size="sm", visible=False)
            with gr.Accordion(t("teach.list"), open=False, visible=False) as self._folded:
                self._list = gr.HTML("", elem_classes="g-list", js_on_load=corrections_view.CHOOSE)
                self._export = gr.Button(t("teach.export"), size="sm")
        self._shown = [self._strip, self._teach, self._undo, self._folded, self._list]
        self._view = poll.add(LiveView([], self._shown, self._mark, self._show, Action.CORRECT))
        self._connect()

    def forget_with(self, page: gr.Chatbot) -> None:
        """Forget the answer when the conversation is cleared, or its last turn is undone."""
        gr.on([page.undo, page.clear], self._context.allow(Action.LOOK, lambda: None), None, self.asked, **QUIET)

    def _place_form(self) -> None:
        with gr.Column(visible=False, elem_classes="g-fix") as self._form:
            self._question = gr.HTML("", elem_classes="g-list")
            self._right: Component
            if self._labels:
                label, info = t("teach.label"), t("teach.label_info")
                self._right = gr.Dropdown([], label=label, info=info, allow_custom_value=True, interactive=True)
            else:
                self._right = gr.Textbox(label=t("teach.text"), lines=3, max_lines=12, interactive=True)
            with gr.Row(elem_classes="g-buttons"):
                self._save = gr.Button(t("teach.save"), variant="primary", size="sm")
                self._cancel = gr.Button(t("teach.cancel"), size="sm")
                self._delete = gr.Button(t("teach.delete"), variant="stop", size="sm", visible=False)

    def _connect(self) -> None:
        form = [self._editing, self._question, self._right, self._delete, self._form]
        self._wrong.click(self._allow(self._open), self.asked, form, **ASKED)
        self._list.select(self._allow(self._edit), None, form, **ASKED)
        self._cancel.click(self._context.allow(Action.LOOK, _hidden), None, self._form, **QUIET)
        acts: Sequence[tuple[gr.Button, Callable[..., Any], list[Component], Component | None]] = (
            (self._save, self._keep, [self.asked, self._editing, self._right], self._form),
            (self._delete, self._remove, [self._editing], self._form),
            (self._undo, self._take_back, [], self._form),
            (self._teach, self._start, [], None),
        )
        for button, act, given, hidden in acts:
            done = button.click(self._allow(act), given, hidden, trigger_mode="once", **ASKED)
            done.success(self._view.handler(self._context.access), None, self._shown, **QUIET)
        page_files.download(self._export, self._allow(self._pack))

    def _open(self, asked: Record | None) -> list[Any]:
        """Open the form for the answer on the page."""
        if not asked:
            raise InputError(*NOTHING)
        row = answered_row(asked["row"], asked["answer"])
        return self._filled(Correction("", 0.0, row, asked["answer"], asked["version"]), asked["labels"])

    def _edit(self, event: gr.EventData) -> list[Any]:
        """Open the form for a correction of the list."""
        found = self._corrections.get(self._tab, str(event.id))
        return self._filled(found, [found.target])

    def _filled(self, correction: Correction, labels: Sequence[str]) -> list[Any]:
        """Return the updates that open the form for a correction; one that is new has no id."""
        right = gr.update(value=correction.target)
        if self._labels:
            known = {*labels, *(other.target for other in self._corrections.list(self._tab))}
            with suppress(AdapterError):
                known.update(self._context.adapters.get(correction.version).labels)
            others = sorted(known - {correction.answered})
            # With two labels, the right one is the other.
            value = correction.target if correction.id else others[0] if len(known) == 2 else None
            right = gr.update(choices=sorted(known), value=value)
        question = corrections_view.question(request_words(), correction)
        return [correction.id, question, right, gr.update(visible=bool(correction.id)), gr.update(visible=True)]

    def _keep(self, asked: Record | None, editing: str, right: str | None) -> Any:  # noqa: ANN401 - a Gradio update
        target = str(right or "").strip()
        if editing:
            self._corrections.edit(self._tab, editing, target)
        elif not asked:
            raise InputError(*NOTHING)
        elif target == asked["answer"].strip():
            raise InputError("This is what was answered.", "", "Say what should have been answered instead.")
        else:
            row = answered_row(asked["row"], target)
            self._corrections.add(self._tab, row, asked["answer"], asked["version"])
        return _hidden()

    def _remove(self, editing: str) -> Any:  # noqa: ANN401
        self._corrections.delete(self._tab, editing)
        return _hidden()

    def _take_back(self) -> Any:  # noqa: ANN401
        self._corrections.undo(self._tab)
        return _hidden()

    def _start(self) -> None:
        _, warning = teach.teach(self._context.settings, self._context.runs, self._context.spec(self._tab))
        if warning:
            gr.Warning(warning, duration=15)

    def _pack(self) -> str:
        """Write the corrections as training rows, for download."""
        content = as_jsonl(self._corrections.list(self._tab), self._columns)
        return cache_file(content.encode(), f"corrections-{self._tab}.jsonl")

    def _lesson(self) -> Any:  # noqa: ANN401 - a Run or None
        """Return the latest run on this tab's corrections; None where nothing was ever corrected."""
        if self._corrections.mark(self._tab) is None:
            return None
        return next(iter(teach.lessons(self._context.runs, self._tab)), None)

    def _mark(self, say: Words) -> object:
        return self._corrections.mark(self._tab), str(corrections_view.lesson(say, self._lesson()))

    def _show(self, say: Words) -> list[Any]:
        found, run = self._corrections.list(self._tab), self._lesson()
        idle = not (run and run.active)
        return [
            corrections_view.summary(say, found, run),
            gr.update(visible=bool(found) and idle),
            gr.update(visible=self._corrections.undoable(self._tab)),
            gr.update(visible=bool(found)),
            corrections_view.listed(say, found),
        ]
