"""What the Train page shows of the chosen run, or of several: where it is, its curves, how it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from errors import GraftError
from training.events import PHASES
from training.progress import Progress
from ui import estimate_view
from ui.card_view import card
from ui.plot import PATTERNS, Line, plot
from ui.render import Html, bar, div, failure, join, notice, span, tag
from ui.run_list import state
from ui.strings import Words
from ui.views import duration, figure

if TYPE_CHECKING:
    from training.record import Run

GIGABYTE = 2.0**30


def run(say: Words, job: Run) -> Html:
    """A run as it is now: where it is, or how it ended, and its curves."""
    head = div("g-run-head", tag("b", job.name), state(say, job))
    facts = span("g-dim", " · ".join((job.plugin, job.data, job.id)))
    views: dict[str, Callable[[Words, Run], Html]] = {
        "queued": _queued, "running": _running, "paused": _paused, "done": _done, "failed": _failed,
        "interrupted": _failed,
    }  # fmt: skip
    body = views[job.state](say, job) if job.state in views else None
    return div("g-run", head, facts, estimate_view.truth(say, job), body, curves(say, job.progress))


def several(say: Words, jobs: Sequence[Run]) -> Html:
    """The losses of several runs on the same axes."""
    jobs = jobs[:PATTERNS]
    names = [f"{job.name} {job.id[9:15]}" for job in jobs]
    found = [job.progress.curves for job in jobs]
    training = [Line(name, curve.get("loss", ())) for name, curve in zip(names, found, strict=True)]
    held_out = [Line(name, curve.get("eval_loss", ()), dots=True) for name, curve in zip(names, found, strict=True)]
    plots = [plot(say("run.loss"), training), plot(say("run.eval_loss"), held_out)]
    return div("g-run", *plots) if any(plots) else div("g-empty", say("run.no_curves"))


def curves(say: Words, now: Progress) -> Html:
    """The losses, and below them whatever else the run has reported."""
    found = now.curves
    losses = [Line(say("run.loss"), found.get("loss", ())),
              Line(say("run.eval_loss"), found.get("eval_loss", ()), dots=True)]  # fmt: skip
    memory = [(step, value / GIGABYTE) for step, value in found.get("memory", ())]
    accuracy = [Line(say("metric.accuracy"), found.get("eval_accuracy", ()), dots=True)]
    small = [
        plot(say("metric.accuracy"), accuracy, now.steps, lambda y: f"{100 * y:g} %"),
        plot(say("run.learning_rate"), [Line("", found.get("learning_rate", ()))], now.steps),
        plot(say("run.tokens_per_s"), [Line("", found.get("tokens_per_s", ()))], now.steps, lambda y: f"{y:,g}"),
        plot(say("run.memory"), [Line("", memory)], now.steps),
    ]
    return join([plot(say("metric.loss"), losses, now.steps), div("g-plots", *small) if any(small) else None])


def _queued(say: Words, job: Run) -> Html:
    return notice(say("run.place", n=job.place))


def _running(say: Words, job: Run) -> Html:
    now = job.progress
    reached = PHASES.index(now.phase) if now.phase in PHASES else 0
    marks = ("g-past" if i < reached else "g-now" if i == reached else "" for i in range(len(PHASES)))
    steps = div("g-phases", *(span(mark, say(f"phase.{phase}")) for mark, phase in zip(marks, PHASES, strict=True)))
    share = {"train": now.step / now.steps if now.steps else None, "data": now.prepared}.get(now.phase)
    words = say("run.step", step=now.step, steps=now.steps) if now.steps else say(f"phase.{PHASES[reached]}")
    left = say("run.left", time=duration(say, now.left_s)) if now.left_s and now.phase == "train" else None
    line = div("g-ends", span("", words), span("", left) if left else None)
    return join([steps, bar(share), line, _tiles(say, now)])


def _tiles(say: Words, now: Progress) -> Html | None:
    """The newest figures, large."""
    write: dict[str, Callable[[float], str]] = {
        "loss": lambda y: f"{y:.3f}",
        "eval_loss": lambda y: f"{y:.3f}",
        "eval_accuracy": lambda y: figure("accuracy", y),
        "learning_rate": lambda y: f"{y:.2g}",
        "tokens_per_s": lambda y: f"{y:,.0f}",
        "memory": lambda y: f"{y / GIGABYTE:.1f} GB",
    }
    names = {"eval_accuracy": "metric.accuracy", "memory": "run.memory_used"}
    tiles = [div("g-tile", span("g-dim", say(names.get(key) or f"run.{key}")), tag("b", text(now.latest[key])))
             for key, text in write.items() if key in now.latest]  # fmt: skip
    return div("g-tiles", *tiles) if tiles else None


def _paused(say: Words, job: Run) -> Html:
    now = job.progress
    said = notice(tag("strong", say("run.is_paused", step=now.step, steps=now.steps)), kind="warn")
    return join([said, bar(now.step / now.steps) if now.steps else None])


def _done(say: Words, job: Run) -> Html:
    result = job.result
    promoted = bool(result.get("promoted"))
    text = say("run.promoted" if promoted else "run.waits", version=result.get("version", ""))
    gate = (result.get("card") or {}).get("gate") or {}
    why = tag("p", gate["why"]) if gate.get("why") else None
    said = notice(tag("strong", text), why, kind="good" if promoted else "warn")
    return join([said, card(say, result.get("card") or {})])


def _failed(say: Words, job: Run) -> Html:
    result = job.result
    return failure(GraftError(*(str(result.get(part) or "") for part in ("what", "why", "next"))))
