"""What a tab gets to be corrected by: "This is wrong", the right answer, and Teach, under each answer.

    correct = Correct(context, plugin, pulse)      # placed where it is constructed
    ... `correct.asked` among the outputs of what answers, with `record(...)` as its value

What is corrected is what was asked of the model and answered by it, whatever the boxes of the page say now. Every tab
with columns has it, where the page may train.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from errors import AdapterError, InputError
from plugins import TaskPlugin
from store.corrections import Correction, answered_row, as_jsonl
from tasks import TASKS
from training.runs import teach
from ui.adapters.card_rows import DOWNLOAD
from ui.context import Context
from ui.html.tags import Html
from ui.i18n import Words, t, words
from ui.pulse import ASKED, QUIET, LiveView, PagePoll
from ui.tab import corrections_view
from ui.tab.diff import plain_answer
from ui.web.access import Action

Record = dict[str, Any]
"""What was asked (`row`, without its answer), the `answer`, the `version` that gave it, and the `labels` it had."""


def record(lm: Any, outputs: Sequence[Any], given: Mapping[str, Any]) -> Record | None:  # noqa: ANN401 - LM or like it
    """What a correction of this answer needs; None where nothing was asked that a row could hold."""
    text = next((value for value in given.values() if isinstance(value, str)), None)
    row = getattr(lm, "asked", None) or ({"text": text} if text else None)
    answer = plain_answer(outputs)
    labels = [str(label) for label in outputs[0]] if outputs and isinstance(outputs[0], Mapping) else []
    if row is None or answer is None:
        return None
    return {"row": row, "answer": answer, "version": str(lm.version), "labels": labels}


def _hidden() -> Any:  # noqa: ANN401 - a Gradio update
    return gr.update(visible=False)


class Correct:
    """Its components and what they do."""

    def __init__(self, context: Context, plugin: TaskPlugin, pulse: PagePoll) -> None:
        """Place it; it follows the pulse."""
        self._context, self._tab = context, plugin.name
        self._allow = partial(context.allow, Action.CORRECT)
        spec = context.spec(plugin.name)
        self._labels = TASKS[spec.task].answers == "label"
        self._columns = {k: v for k, v in vars(spec.columns).items() if v} if spec.columns else {}
        self.asked = gr.State(None)
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
            # Beside what is folded: showing that again would show this too.
            self._file = gr.File(visible="hidden", show_label=False, elem_classes="g-unseen")
        self._shown = [self._strip, self._teach, self._undo, self._folded, self._list]
        self._follower = pulse.add(LiveView([], self._shown, self._mark, self._show, Action.CORRECT))
        self._connect()

    def forget_with(self, page: gr.Chatbot) -> None:
        """Nothing is there to be corrected once a conversation was cleared, or its last turn taken back."""
        gr.on([page.undo, page.clear], self._context.allow(Action.LOOK, lambda: None), None, self.asked, **QUIET)

    def _place_form(self) -> None:
        with gr.Column(visible=False, elem_classes="g-fix") as self._form:
            self._question = gr.HTML("", elem_classes="g-list")
            self._right: Component = (
                gr.Dropdown([], label=t("teach.label"), info=t("teach.label_info"), allow_custom_value=True,
                            interactive=True)
                if self._labels
                else gr.Textbox(label=t("teach.text"), lines=3, max_lines=12, interactive=True)
            )  # fmt: skip
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
            done.success(self._follower.handler(self._context.access), None, self._shown, **QUIET)
        made = self._export.click(self._allow(self._pack), None, self._file, **ASKED)
        made.success(None, self._file, None, js=DOWNLOAD, api_visibility="private")

    def _open(self, request: gr.Request, asked: Record | None) -> list[Any]:
        """The form for the answer on the page."""
        if not asked:
            raise InputError("There is nothing to correct.", "Nothing was answered on this page.", "Ask something.")
        row = answered_row(asked["row"], asked["answer"])
        given = Correction("", 0.0, row, asked["answer"], asked["version"])
        return ["", *self._filled(words(request), given, asked["labels"]), gr.update(visible=True)]

    def _edit(self, event: gr.EventData, request: gr.Request) -> list[Any]:
        """The form for a correction of the list."""
        found = self._context.corrections.get(self._tab, str(event.id))
        return [found.id, *self._filled(words(request), found, [found.target]), gr.update(visible=True)]

    def _filled(self, say: Words, of: Correction, labels: Sequence[str]) -> list[Any]:
        """The question, the box for the right answer, and whether there is something to delete."""
        question = corrections_view.question(say, of)
        if not self._labels:
            return [question, gr.update(value=of.target), gr.update(visible=bool(of.id))]
        known = sorted({*labels, *self._version_labels(of.version), *self._used_labels()})
        others = [label for label in known if label != of.answered]
        # With two labels, the right one is the other.
        value = of.target if of.id else others[0] if len(known) == 2 else None
        return [question, gr.update(choices=known, value=value), gr.update(visible=bool(of.id))]

    def _version_labels(self, ref: str) -> list[str]:
        try:
            return self._context.adapters.get(ref).labels
        except AdapterError:
            return []

    def _used_labels(self) -> list[str]:
        return [correction.target for correction in self._context.corrections.list(self._tab)]

    def _keep(self, asked: Record | None, editing: str, right: str | None) -> Any:  # noqa: ANN401 - a Gradio update
        target = str(right or "").strip()
        if editing:
            self._context.corrections.edit(self._tab, editing, target)
        elif not asked:
            raise InputError("There is nothing to correct.", "Nothing was answered on this page.", "Ask something.")
        elif target == asked["answer"].strip():
            raise InputError("This is what was answered.", "", "Say what should have been answered instead.")
        else:
            row = answered_row(asked["row"], target)
            self._context.corrections.add(self._tab, row, asked["answer"], asked["version"])
        return gr.update(visible=False)

    def _remove(self, editing: str) -> Any:  # noqa: ANN401
        self._context.corrections.delete(self._tab, editing)
        return gr.update(visible=False)

    def _take_back(self) -> Any:  # noqa: ANN401
        self._context.corrections.undo(self._tab)
        return gr.update(visible=False)

    def _start(self) -> None:
        _, warning = teach.teach(self._context.settings, self._context.runs, self._context.spec(self._tab))
        if warning:
            gr.Warning(warning, duration=15)

    def _pack(self) -> str:
        """The corrections as rows to train on, in one file of Gradio's own cache, which it serves and sweeps."""
        content = as_jsonl(self._context.corrections.list(self._tab), self._columns)
        path: str = save_bytes_to_cache(content.encode(), f"corrections-{self._tab}.jsonl", get_upload_folder())
        return path

    def _lesson(self) -> Any:  # noqa: ANN401 - a Run or None
        """The newest run that taught this tab; looked up only where there was anything to teach."""
        if self._context.corrections.mark(self._tab) is None:
            return None
        return next(iter(teach.lessons(self._context.runs, self._tab)), None)

    def _mark(self, say: Words) -> object:
        return self._context.corrections.mark(self._tab), str(corrections_view.lesson(say, self._lesson()))

    def _show(self, say: Words) -> list[Any]:
        if self._context.corrections.mark(self._tab) is None:
            return [Html(""), *[gr.update(visible=False)] * 3, Html("")]
        found, run = self._context.corrections.list(self._tab), self._lesson()
        idle = not (run and run.active)
        return [
            corrections_view.strip(say, found, run),
            gr.update(visible=bool(found) and idle),
            gr.update(visible=self._context.corrections.undoable(self._tab)),
            gr.update(visible=bool(found)),
            corrections_view.listed(say, found),
        ]
