"""Form that takes in an adapter made elsewhere, from a zip, as a version of a tab.

The page does not read the zip: a child process opens it, `python -m training import`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import gradio as gr

from errors import AdapterError, InputError
from plugins import TaskPlugin
from store.adapters import check_name
from tasks import TASKS
from ui.adapters.merge_export import lines, step
from ui.context import Context
from ui.html.tags import failure, notice, tag
from ui.i18n import t, words
from ui.pulse import QUIET, PagePoll, Updates
from ui.web.access import Action

PHASES = ("unpack", "base", "verify", "publish")
"""Lines that the child prints; the last line after them is the version."""


def build(context: Context, poll: PagePoll, menus: Mapping[str, gr.Dropdown]) -> None:
    """Place the form and connect it, where the page may train.

    `menus` choose the version of each tab that is looked at, by the tab's name: the new version is chosen there.
    """
    learners = context.learners()
    if context.access.possible and learners:
        with poll.reserved(Action.KEEP):
            _place(context, learners, menus)


def _place(context: Context, learners: Sequence[TaskPlugin], menus: Mapping[str, gr.Dropdown]) -> None:
    first = learners[0].name
    with gr.Accordion(t("import.title"), open=False, elem_classes="g-import"):
        gr.Markdown(t("import.about"), elem_classes="g-about")
        with gr.Row(elem_classes="g-columns"):
            with gr.Column():
                file = gr.File(file_types=[".zip"], label=t("import.file"), height=130, elem_classes="g-upload")
            with gr.Column():
                choices = [(plugin.say(plugin.title), plugin.name) for plugin in learners]
                tab = gr.Dropdown(choices, value=first, label=t("import.tab"), interactive=True, filterable=False)
                name = gr.Textbox(label=t("train.name"), info=t("train.name_info"), max_lines=1)
                labels = gr.Textbox(
                    label=t("import.labels"),
                    info=t("import.labels_info"),
                    max_lines=1,
                    visible=_has_labels(context, first),
                )
        take = gr.Button(t("import.take"), variant="primary")
        message = gr.HTML("", elem_classes="g-list")
    shown = context.allow(Action.KEEP, lambda chosen: gr.update(visible=_has_labels(context, chosen)), silently=True)
    tab.change(shown, tab, labels, **QUIET)
    take.click(
        context.allow(Action.KEEP, take_in(context, message, menus)),
        inputs_kwargs={"file": file, "tab": tab, "name": name, "labels": labels},
        outputs=[message, *menus.values()],
        show_progress="hidden",
        api_visibility="private",
        trigger_mode="once",
    )


def take_in(context: Context, message: gr.HTML, menus: Mapping[str, gr.Dropdown]) -> Callable[..., Iterator[Updates]]:
    """Return the handler that shows each phase in `message`, and at last the new version, or why there is none."""

    def handler(
        request: gr.Request, file: str | None, tab: str | None, name: str | None, labels: str | None
    ) -> Iterator[Updates]:
        say, spec, ref = words(request), context.spec(tab or ""), ""
        if not file:
            raise InputError("There is no file.", "Nothing was chosen.", "Choose the zip of a PEFT adapter.")
        own = f"--plugin={spec.name}", f"--name={check_name((name or '').strip())}", f"--labels={labels or ''}"
        yield {message: step(say(f"import.{PHASES[0]}"), PHASES, PHASES[0])}
        try:
            for line in lines(["import", str(file), *own], context.settings.home, say("import.refused")):
                ref = line.strip()
                if ref in PHASES:
                    yield {message: step(say(f"import.{ref}"), PHASES, ref)}
        except AdapterError as error:
            yield {message: failure(error)}
            return
        context.versions_changed()
        refs = [version.ref for version in context.adapters.versions(spec.name)]
        done = notice(tag("strong", say("import.done", version=ref)), tag("p", say("import.next")))
        yield {message: done, menus[spec.name]: gr.update(choices=refs, value=ref, visible=True)}

    return handler


def _has_labels(context: Context, tab: str | None) -> bool:
    return bool(tab) and TASKS[context.spec(str(tab)).task].answers == "label"
