"""Train: what the run in the form will need, before it starts, and what runs were expected to need and needed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from errors import GraftError
from training.estimate import fit, speed
from training.estimate.fit import gigabytes
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

_TIMED: set[Path] = set()
"""Homes whose machine is being timed, or was."""


def place_estimate() -> tuple[gr.HTML, gr.Button]:
    """Where the estimate stands, and the button that starts a run that does not fit."""
    return gr.HTML("", elem_classes="g-list g-estimate"), gr.Button(t("estimate.anyway"), visible=False, variant="stop")


def connect(
    context: Context,
    changes: Sequence[Callable[..., Any]],
    inputs: dict[str, Block],
    shown: tuple[gr.HTML, gr.Button],
    config_of: Callable[[Mapping[str, Any]], TrainConfig],
) -> None:
    """Show the estimate of what the form says, anew with each of the `changes`."""

    def estimated(request: gr.Request, **values: object) -> list[Any]:
        say = words(request)
        try:
            case = context.runs.case(config_of(values))
        except GraftError:
            return [Html(""), gr.update(visible=False)]  # the command says what is wrong
        if case is None:
            return [notice(say("estimate.unknown")), gr.update(visible=False)]
        _time(case.home)
        found = case.estimate()
        advice = [] if found.fits_memory else fit.advised(case)
        return [view(say, found, advice), gr.update(visible=not found.fits)]

    gr.on(
        changes,
        context.allow(Action.TRAIN, estimated),
        inputs_kwargs=inputs,
        outputs=[*shown],
        trigger_mode="always_last",
        **QUIET,
    )


def view(say: Words, found: Estimate, advice: Sequence[str] = ()) -> Html:
    """What a run needs: a sentence, the parts of its memory, and what would fit where it does not."""
    needs = say("estimate.needs", memory=gigabytes(found.peak), free=gigabytes(found.free),
                disk=gigabytes(found.stored), time=duration(say, sum(found.seconds.values())))  # fmt: skip
    by = say(f"estimate.by_{found.by}", n=found.runs)
    saving = f" · {say('estimate.checkpointing')}" if found.checkpointing else ""
    rest = div("g-dim", by, saving)
    return div("g-estimated", tag("b", needs), parts(say, found.memory, found.free), _refused(say, found, advice), rest)


def _refused(say: Words, found: Estimate, advice: Sequence[str]) -> Html | None:
    if found.fits:
        return None
    what = say("estimate.no_memory" if not found.fits_memory else "estimate.no_disk")
    return notice(tag("strong", what), tag("ul", *(tag("li", one) for one in advice)) if advice else None, kind="bad")


def parts(say: Words, memory: Mapping[str, int], free: int) -> Html:
    """A bar of the parts of a run's memory, as wide as what is free or what is needed, and what they are."""
    shown = [(name, size) for name, size in memory.items() if size]
    whole = max(1, free, sum(memory.values()))
    pieces = (
        tag("i", class_=f"g-part{i}", style=f"width:{100 * size / whole:.2f}%") for i, (_, size) in enumerate(shown)
    )
    names = (span("g-key", tag("i", class_=f"g-part{i}"), f"{say(f'estimate.{name}')} {gigabytes(size)}")
             for i, (name, size) in enumerate(shown))  # fmt: skip
    return join([div("g-stack", *pieces), div("g-keys g-dim", *names)])


def truth(say: Words, job: Run) -> Html | None:
    """What a run was expected to need, beside what it needed, as far as it has come."""
    result = job.result
    expected, measured = result.get("estimate") or job.progress.estimate, result.get("measured") or {}
    try:
        peak, seconds = gigabytes(expected["peak"]), duration(say, expected["total_s"])
        if not measured:
            return div("g-dim", say("estimate.expected", memory=peak, time=seconds))
        took = duration(say, sum(measured["seconds"].values()))
        return div(
            "g-dim", say("estimate.truth", memory=peak, time=seconds, peak=gigabytes(measured["peak"]), took=took)
        )
    except (KeyError, TypeError, AttributeError):
        return None  # a run of an earlier Graft


def _time(home: Path) -> None:
    """Time this machine once, while the page goes on."""
    if home not in _TIMED and not speed.read(home):
        _TIMED.add(home)
        threading.Thread(target=speed.calibrate, args=(home,), daemon=True, name="calibration").start()
