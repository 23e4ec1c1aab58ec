"""Estimate of the memory, disk and time of the run in the form, and the estimates of runs beside what they used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from errors import GraftError
from training.estimate.advice import gigabytes, suggestions
from training.estimate.estimate import estimate_run, seconds_a_step
from ui.context import Context
from ui.html.format import duration
from ui.html.tags import Html, div, join, notice, span, tag
from ui.i18n import Words, t, words
from ui.pulse import QUIET
from ui.web.access import Action

if TYPE_CHECKING:
    from gradio.blocks import Block

    from training.config import TrainConfig
    from training.estimate.estimate import Estimate
    from training.runs.run import Run


def place_estimate() -> tuple[gr.HTML, gr.Button]:
    """Place the estimate, and the button that starts a run that does not fit."""
    return gr.HTML("", elem_classes="g-list g-estimate"), gr.Button(t("estimate.anyway"), visible=False, variant="stop")


def connect(
    context: Context,
    changes: Sequence[Callable[..., Any]],
    inputs: dict[str, Block],
    shown: tuple[gr.HTML, gr.Button],
    config_of: Callable[[Mapping[str, Any]], TrainConfig],
) -> None:
    """Show the estimate of the run that the form describes, anew with each of the `changes`."""

    def estimated(request: gr.Request, **values: object) -> list[Any]:
        say = words(request)
        try:
            plan = context.runs.plan(config_of(values))
        except GraftError:
            return [Html(""), gr.update(visible=False)]  # the command says what is wrong
        if plan is None:
            return [notice(say("estimate.unknown")), gr.update(visible=False)]
        found = estimate_run(plan)
        advice = [] if found.fits_memory else suggestions(plan)
        shown = view(say, found, advice, seconds_a_step(context.settings.home, found))
        return [shown, gr.update(visible=not found.fits)]

    gr.on(
        changes,
        context.allow(Action.TRAIN, estimated),
        inputs_kwargs=inputs,
        outputs=[*shown],
        trigger_mode="always_last",
        **QUIET,
    )


def view(say: Words, found: Estimate, advice: Sequence[str], step: tuple[float, int]) -> Html:
    """Show the needs of a run: a sentence, the parts of its memory, and changes that fit where it does not.

    `step` is the seconds of a step and the number of earlier runs that tell them.
    """
    memory, free, disk = map(gigabytes, (found.peak, found.free, found.stored))
    needs = say("estimate.needs", memory=memory, free=free, disk=disk, steps=found.steps)
    seconds, runs = step
    time = say("estimate.by_runs", time=duration(say, seconds * found.steps), n=runs) if runs else None
    known = [one for one in (time, say("estimate.checkpointing") if found.checkpointing else None) if one]
    rest = div("g-dim", " · ".join(known)) if known else None
    return div("g-estimated", tag("b", needs), parts(say, found.memory, found.free), _refused(say, found, advice), rest)


def _refused(say: Words, found: Estimate, advice: Sequence[str]) -> Html | None:
    if found.fits:
        return None
    what = say("estimate.no_memory" if not found.fits_memory else "estimate.no_disk")
    return notice(tag("strong", what), tag("ul", *(tag("li", one) for one in advice)) if advice else None, kind="bad")


def parts(say: Words, memory: Mapping[str, int], free: int) -> Html:
    """Show a bar of the parts of a run's memory in bytes, as wide as the larger of the free and the needed memory."""
    shown = [(name, size) for name, size in memory.items() if size]
    whole = max(1, free, sum(memory.values()))
    pieces, names = list[Html](), list[Html]()
    for i, (name, size) in enumerate(shown):
        pieces.append(tag("i", class_=f"g-part{i}", style=f"width:{100 * size / whole:.2f}%"))
        words = f"{say(f'estimate.{name}')} {gigabytes(size)}"
        names.append(span("g-key", tag("i", class_=f"g-part{i}"), words))
    return join([div("g-stack", *pieces), div("g-keys g-dim", *names)])


def truth(say: Words, job: Run) -> Html | None:
    """Show the expected memory of a run beside the measured one, as far as it has come."""
    result = job.result
    expected, measured = result.get("estimate") or job.progress.estimate, result.get("measured") or {}
    try:
        memory = gigabytes(expected["peak"])
        if not measured:
            return div("g-dim", say("estimate.expected", memory=memory))
        took = duration(say, sum(measured["seconds"].values()))
        return div("g-dim", say("estimate.truth", memory=memory, peak=gigabytes(measured["peak"]), took=took))
    except (KeyError, TypeError, AttributeError):
        return None  # a run of an earlier Graft
