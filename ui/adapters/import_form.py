"""Adapters: take in an adapter that was made elsewhere, from a zip, as a version of a tab.

The zip is opened by a process of its own, the command `python -m training import`; nothing of it is read here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gradio as gr

from errors import AdapterError, InputError
from plugins import TaskPlugin
from store.adapters import check_name
from tasks import TASKS
from ui.adapters.merge_export import followed
from ui.context import Context
from ui.html.tags import Html, bar, div, failure, notice, span, tag
from ui.i18n import Words, t, words
from ui.pulse import QUIET, PagePoll
from ui.web.access import Action

COMMAND = (sys.executable, "-m", "training", "import")
PHASES = ("unpack", "base", "verify", "publish")
"""What the process says of itself, a line each; the last line after them is the version."""


def build(context: Context, pulse: PagePoll, menus: Mapping[str, gr.Dropdown]) -> None:
    """Place the form and connect it, where the page may train.

    `menus` choose which version of a tab is looked at, by its name: what was taken in is chosen there.
    """
    learners = context.learners()
    if context.access.possible and learners:
        with pulse.reserved(Action.KEEP):
            _place(context, learners, menus)


def _place(context: Context, learners: Sequence[TaskPlugin], menus: Mapping[str, gr.Dropdown]) -> None:
    with gr.Accordion(t("import.title"), open=False, elem_classes="g-import"):
        gr.Markdown(t("import.about"), elem_classes="g-about")
        with gr.Row(elem_classes="g-columns"):
            with gr.Column():
                file = gr.File(file_types=[".zip"], file_count="single", label=t("import.file"), height=130,
                               elem_classes="g-upload")  # fmt: skip
            with gr.Column():
                tab = gr.Dropdown([(p.say(p.title), p.name) for p in learners], value=learners[0].name,
                                  label=t("import.tab"), interactive=True, filterable=False)  # fmt: skip
                name = gr.Textbox(label=t("train.name"), info=t("train.name_info"), max_lines=1)
                labels = gr.Textbox(label=t("import.labels"), info=t("import.labels_info"), max_lines=1,
                                    visible=_has_labels(context, learners[0].name))  # fmt: skip
        take = gr.Button(t("import.take"), variant="primary")
        said = gr.HTML("", elem_classes="g-list")
    shown = context.allow(Action.KEEP, lambda chosen: gr.update(visible=_has_labels(context, chosen)), silently=True)
    tab.change(shown, tab, labels, **QUIET)
    take.click(context.allow(Action.KEEP, take_in(context, list(menus))), [file, tab, name, labels],
               [said, *menus.values()], show_progress="hidden", api_visibility="private",
               trigger_mode="once")  # fmt: skip


def take_in(context: Context, tabs: Sequence[str]) -> Callable[..., Iterator[list[Any]]]:
    """The handler: says each step on the way, and at last which version it is, or why there is none.

    Behind what it says come the updates of the menus of `tabs`.
    """
    unchanged = [gr.skip()] * len(tabs)

    def handler(
        request: gr.Request, file: str | None, tab: str | None, name: str | None, labels: str | None
    ) -> Iterator[list[Any]]:
        say, spec = words(request), context.spec(tab or "")
        if not file:
            raise InputError("There is no file.", "Nothing was chosen.", "Choose the zip of a PEFT adapter.")
        command = [*COMMAND, str(file), f"--plugin={spec.name}", f"--name={check_name((name or '').strip())}",
                   f"--labels={labels or ''}"]  # fmt: skip
        yield [_step(say, PHASES[0]), *unchanged]
        ref = ""
        try:
            for line in followed(command, context.settings.home, say("import.refused")):
                ref = line
                if line in PHASES:
                    yield [_step(say, line), *unchanged]
        except AdapterError as error:
            yield [failure(error), *unchanged]
            return
        context.versions_changed()
        done = notice(tag("strong", say("import.done", version=ref)), tag("p", say("import.next")))
        yield [done, *(_choose(context, spec.name, ref) if other == spec.name else gr.skip() for other in tabs)]

    return handler


def _choose(context: Context, tab: str, ref: str) -> Any:  # noqa: ANN401 - an update
    return gr.update(choices=[version.ref for version in context.adapters.versions(tab)], value=ref, visible=True)


def _has_labels(context: Context, tab: str | None) -> bool:
    return bool(tab) and TASKS[context.spec(str(tab)).task].answers == "label"


def _step(say: Words, phase: str) -> Html:
    share = (PHASES.index(phase) + 0.5) / len(PHASES)
    return div("g-loading", span("", say(f"import.{phase}")), bar(share))
