"""What the Train page shows of the chosen run, or of several: where it is, its curves, how it ended."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from errors import GraftError
from training.config import TENSORBOARD, TRACKERS, TRACKIO
from training.events import PHASES
from training.runs.run_progress import Progress
from ui.adapters.card_view import figures
from ui.html.format import day, duration, figure
from ui.html.plot import PATTERNS, Curve, plot
from ui.html.tags import Html, bar, div, failure, join, notice, span, tag
from ui.i18n import Words
from ui.train import estimate_view

if TYPE_CHECKING:
    from training.runs.run import Run

LISTED = 50
"""Runs that the table shows."""
COARSE = 20
"""Steps of the bar in the table, so that it is not made anew all the time."""
CHOOSE = """element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-run]');
  if (row) trigger('select', {run: row.dataset.run, several: event.target.role === 'checkbox'});
});"""
"""Runs in the browser: tells which row was clicked, and whether on its box."""


def table(say: Words, runs: Sequence[Run], chosen: Collection[str], titled: Callable[[str], str] = str) -> Html:
    """A row for each run; those in `chosen` are marked. `titled` gives a tab's title by its name."""
    if not runs:
        return Html("")
    names = ("run.compare", "run.name", "run.state", "run.tab", "run.figure", "run.began", "run.took")
    head = tag("tr", *(tag("th", say(name)) for name in names))
    body = (_row(say, run, run.id in chosen, titled(run.plugin)) for run in runs[:LISTED])
    return div("g-table g-runlist", tag("table", tag("thead", head), tag("tbody", *body)))


def state(say: Words, run: Run) -> Html:
    """The state as a word in its colour; where a run waits, its place."""
    words = say("run.pausing") if run.pausing else say(f"run.{run.state}")
    place = f" {run.place}" if run.place else ""
    return span(f"g-state g-{run.state}", words + place)


def _row(say: Words, run: Run, chosen: bool, tab: str) -> Html:
    # Not an input: what its user clicked would stay checked, whatever the table says later.
    marked = "true" if chosen else "false"
    box = tag("button", type="button", role="checkbox", class_="g-box", aria_checked=marked,
              aria_label=f"{say('run.compare')} {run.name}")  # fmt: skip
    name = tag("button", run.name, type="button", class_="g-pick", aria_pressed=marked)
    cells = (box, name, div("g-nowrap", state(say, run), _share(run)), tab, _figure(say, run),
             div("g-nowrap", day(run.started or run.created)), _took(say, run))  # fmt: skip
    return tag("tr", *(tag("td", cell) for cell in cells), data_run=run.id, class_="g-chosen" if chosen else None)


def _share(run: Run) -> Html | None:
    """How much of the training is done, where it goes on or may go on."""
    if run.state not in ("running", "paused", "interrupted"):
        return None
    progress = run.progress
    return bar(round(COARSE * progress.step / progress.steps) / COARSE, "g-small") if progress.steps else None


def _figure(say: Words, run: Run) -> Html | str:
    if run.metric is None or run.figure is None:
        return run.version or ""
    return div("g-nowrap", tag("b", figure(run.metric, run.figure)), " ", span("g-dim", say(f"metric.{run.metric}")))


def _took(say: Words, run: Run) -> Html | str:
    if run.state == "queued":
        return ""
    # Whole minutes while it goes on, for the same reason as the bar's.
    seconds = 60 * (run.duration // 60) if run.state == "running" else run.duration
    return div("g-nowrap", duration(say, seconds)) if seconds >= 1 else ""


GIGABYTE = 2.0**30
REFUSED = "This run cannot go on from its checkpoint."
"""How the result of a run begins whose rows or settings are not those of its checkpoint."""
OPEN = """element.addEventListener('click', async (event) => {
  const link = event.target.closest('[data-open]');
  if (!link) return;
  const tabs = [...document.querySelectorAll('.g-tabs > .tab-wrapper button[role=tab]')];
  tabs[tabs.length - 1].click();
  for (let i = 0; i < 50; i++) {
    const row = document.querySelector(`[data-version="${link.dataset.open}"]`);
    if (row && row.offsetParent) {
      row.click();
      row.scrollIntoView({behavior: 'smooth', block: 'center'});
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
});"""
"""Runs in the browser: a link to a version shows it on the Adapters page, which is the last."""


def run(say: Words, job: Run, tab: str = "") -> Html:
    """A run of the tab with that title as it is now: where it is, or how it ended, and its curves."""
    head = div("g-run-head", tag("b", job.name), state(say, job))
    facts = span("g-dim", " · ".join((tab or job.plugin, job.data, job.id)))
    views: dict[str, Callable[[Words, Run], Html]] = {
        "queued": _queued, "running": _running, "paused": _paused, "done": _done, "failed": _failed,
        "interrupted": _failed,
    }  # fmt: skip
    body = views[job.state](say, job) if job.state in views else None
    return div("g-run", head, facts, estimate_view.truth(say, job), body, curves(say, job.progress), _tracked(say, job))


def _tracked(say: Words, job: Run) -> Html | None:
    """How to look at a run with the tool that it was tracked with."""
    home = job.folder.parent.parent
    commands = [
        (f"tensorboard --logdir {shlex.quote(str(job.folder.parent))}", (job.folder / TENSORBOARD).exists()),
        (f"TRACKIO_DIR={shlex.quote(str(home / TRACKIO))} trackio show --project {job.name}", _is_in_trackio(job)),
    ]
    lines = [tag("p", say("run.look"), tag("code", command)) for command, there in commands if there]
    return notice(*lines) if lines else None


def _is_in_trackio(job: Run) -> bool:
    try:
        return TRACKIO in TRACKERS[job.config.track] and job.state != "queued"
    except GraftError:
        return False


def several(say: Words, jobs: Sequence[Run]) -> Html:
    """The losses of several runs on the same axes, and where they classify, their accuracy."""
    jobs = jobs[:PATTERNS]
    names = [f"{job.name} {job.id[9:15]}" for job in jobs]
    found = [job.progress.curves for job in jobs]
    training = [Curve(name, curve.get("loss", ())) for name, curve in zip(names, found, strict=True)]
    held_out = [Curve(name, curve.get("eval_loss", ()), dots=True) for name, curve in zip(names, found, strict=True)]
    accuracy = [
        Curve(name, curve.get("eval_accuracy", ()), dots=True) for name, curve in zip(names, found, strict=True)
    ]
    plots = [
        plot(say("run.loss"), training),
        plot(say("run.eval_loss"), held_out),
        plot(say("metric.accuracy"), accuracy, write=lambda y: f"{100 * y:g} %"),
    ]
    return div("g-run", *plots) if any(plots) else div("g-empty", say("run.no_curves"))


def curves(say: Words, now: Progress) -> Html:
    """The losses, and below them whatever else the run has reported."""
    found = now.curves
    losses = [Curve(say("run.loss"), found.get("loss", ())),
              Curve(say("run.eval_loss"), found.get("eval_loss", ()), dots=True)]  # fmt: skip
    memory = [(step, value / GIGABYTE) for step, value in found.get("memory", ())]
    accuracy = [Curve(say("metric.accuracy"), found.get("eval_accuracy", ()), dots=True)]
    small = [
        plot(say("metric.accuracy"), accuracy, now.steps, lambda y: f"{100 * y:g} %"),
        plot(say("run.learning_rate"), [Curve("", found.get("learning_rate", ()))], now.steps),
        plot(say("run.tokens_per_s"), [Curve("", found.get("tokens_per_s", ()))], now.steps, lambda y: f"{y:,g}"),
        plot(say("run.memory"), [Curve("", memory)], now.steps),
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
    ref = str(result.get("version", ""))
    link = tag("button", say("run.open", version=ref), type="button", class_="g-link", data_open=ref) if ref else None
    said = notice(tag("strong", text), tag("p", link) if link else None, kind="good" if promoted else "warn")
    return join([said, figures(say, result.get("card") or {})])


def _failed(say: Words, job: Run) -> Html:
    result = job.result
    return failure(GraftError(*(str(result.get(part) or "") for part in ("what", "why", "next"))))
