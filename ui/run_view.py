"""What the Train page shows of a run: where it is, or how it ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

from errors import GraftError
from training.events import PHASES
from ui.card_view import card
from ui.render import Html, bar, curve, div, failure, folded, join, notice, span, tag
from ui.strings import Words
from ui.views import duration

if TYPE_CHECKING:
    from training.runs import Run


def run(say: Words, job: Run) -> Html:
    """A run as it is now: where it is, or how it ended."""
    head = div("g-run-head", tag("b", job.config.name), span(f"g-state g-{job.state}", say(f"run.{job.state}")))
    facts = span("g-dim", f"{job.config.plugin} · {job.config.data.rsplit('/', 1)[-1]}")
    body = {"running": _running, "done": _done, "failed": _failed}.get(job.state)
    return div("g-run", head, facts, body(say, job) if body else None)


def _running(say: Words, job: Run) -> Html:
    now = job.progress
    reached = PHASES.index(now.phase) if now.phase in PHASES else 0
    marks = ("g-past" if i < reached else "g-now" if i == reached else "" for i in range(len(PHASES)))
    steps = div("g-phases", *(span(mark, say(f"phase.{phase}")) for mark, phase in zip(marks, PHASES, strict=True)))
    share = now.step / now.steps if now.steps and now.phase == "train" else None
    words = say("run.step", step=now.step, steps=now.steps) if now.steps else say(f"phase.{now.phase}")
    left = say("run.left", time=duration(say, now.left_s)) if now.left_s and now.phase == "train" else None
    line = div("g-ends", span("", words), span("", left) if left else None)
    return join([steps, bar(share), line, curve(now.losses, now.steps, say("run.loss"))])


def _done(say: Words, job: Run) -> Html:
    result = job.result
    promoted = bool(result.get("promoted"))
    text = say("run.promoted" if promoted else "run.waits", version=result.get("version", ""))
    gate = (result.get("card") or {}).get("gate") or {}
    why = tag("p", gate["why"]) if gate.get("why") else None
    said = notice(tag("strong", text), why, kind="good" if promoted else "warn")
    losses = folded(say("run.curve"), curve(job.progress.losses, job.progress.steps, say("run.loss")))
    return join([said, card(say, result.get("card") or {}), losses])


def _failed(say: Words, job: Run) -> Html:
    result = job.result
    error = GraftError(*(str(result.get(part) or "") for part in ("what", "why", "next")))
    log = "\n".join(result.get("log") or ())
    return join([failure(error), folded(say("run.log"), tag("pre", log)) if log else None])
