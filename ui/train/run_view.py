"""HTML of runs on the Train page: the table, one run with its curves, and the curves of several on the same axes."""

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
"""Steps of the bar in the table, so that it does not change all the time."""
GIGABYTE = 2.0**30
REFUSED = "This run cannot go on from its checkpoint."
"""First sentence of the error of a run whose rows or settings are not those of its checkpoint."""
CHOOSE = """element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-run]');
  if (row) trigger('select', {run: row.dataset.run, several: event.target.role === 'checkbox'});
});"""
"""Runs in the browser: reports which row was clicked, and whether on its box."""
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


def table(say: Words, runs: Sequence[Run], chosen: Collection[str], titled: Callable[[str], str] = str) -> Html:
    """Show a row for each run; those in `chosen` are marked. `titled` returns the title of a tab by its name."""
    if not runs:
        return Html("")
    names = ("compare", "name", "state", "tab", "figure", "began", "took")
    head = tag("tr", *(tag("th", say(f"run.{name}")) for name in names))
    body = (_row(say, run, run.id in chosen, titled(run.plugin)) for run in runs[:LISTED])
    return div("g-table g-runlist", tag("table", tag("thead", head), tag("tbody", *body)))


def _row(say: Words, run: Run, chosen: bool, tab: str) -> Html:
    # Not an input: one that was clicked stays checked, whatever the table says later.
    marked, label = "true" if chosen else "false", f"{say('run.compare')} {run.name}"
    cells = (
        tag("button", type="button", role="checkbox", class_="g-box", aria_checked=marked, aria_label=label),
        tag("button", run.name, type="button", class_="g-pick", aria_pressed=marked),
        div("g-nowrap", state(say, run), _share(run)),
        tab,
        _figure(say, run),
        div("g-nowrap", day(run.started or run.created)),
        _took(say, run),
    )
    return tag("tr", *(tag("td", cell) for cell in cells), data_run=run.id, class_="g-chosen" if chosen else None)


def state(say: Words, run: Run) -> Html:
    """Show the state as a word in its colour, with the place in the queue of a run that waits."""
    words = say("run.pausing" if run.pausing else f"run.{run.state}")
    return span(f"g-state g-{run.state}", f"{words} {run.place}" if run.place else words)


def _share(run: Run) -> Html | None:
    """Show the share of the training that is done, of a run that goes on or may go on."""
    steps = run.progress.steps if run.state in ("running", "paused", "interrupted") else 0
    return bar(round(COARSE * run.progress.step / steps) / COARSE, "g-small") if steps else None


def _figure(say: Words, run: Run) -> Html | str:
    if run.metric is None or run.figure is None:
        return run.version or ""
    return div("g-nowrap", tag("b", figure(run.metric, run.figure)), " ", span("g-dim", say(f"metric.{run.metric}")))


def _took(say: Words, run: Run) -> Html | None:
    # Whole minutes while it goes on, for the same reason as the bar's steps.
    seconds = 60 * (run.duration // 60) if run.state == "running" else run.duration
    return div("g-nowrap", duration(say, seconds)) if seconds >= 1 and run.state != "queued" else None


def run(say: Words, job: Run, tab: str = "") -> Html:
    """Show a run of the tab with that title: its progress or its result, and its curves."""
    head = div("g-run-head", tag("b", job.name), state(say, job))
    facts = span("g-dim", " · ".join((tab or job.plugin, job.data, job.id)))
    views = {"queued": _queued, "running": _running, "paused": _paused, "done": _done}
    views |= {"failed": _failed, "interrupted": _failed}
    body = views[job.state](say, job) if job.state in views else None
    return div("g-run", head, facts, estimate_view.truth(say, job), body, curves(say, job.progress), _tracked(say, job))


def _tracked(say: Words, job: Run) -> Html | None:
    """Show the commands that open the tools that the run was tracked with."""
    runs, commands = job.folder.parent, []
    if (job.folder / TENSORBOARD).exists():
        commands.append(f"tensorboard --logdir {shlex.quote(str(runs))}")
    if _is_in_trackio(job):
        folder = shlex.quote(str(runs.parent / TRACKIO))
        commands.append(f"TRACKIO_DIR={folder} trackio show --project {job.name}")
    lines = [tag("p", say("run.look"), tag("code", command)) for command in commands]
    return notice(*lines) if lines else None


def _is_in_trackio(job: Run) -> bool:
    try:
        return TRACKIO in TRACKERS[job.config.track] and job.state != "queued"
    except GraftError:
        return False


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def several(say: Words, jobs: Sequence[Run]) -> Html:
    """Show the losses of several runs on the same axes and, where they classify, their accuracies."""
    found = [(f"{job.name} {job.id[9:15]}", job.progress.curves) for job in jobs[:PATTERNS]]

    def each(key: str, dots: bool = True) -> list[Curve]:
        return [Curve(name, curves.get(key, ()), dots=dots) for name, curves in found]

    plots = [
        plot(say("run.loss"), each("loss", dots=False)),
        plot(say("run.eval_loss"), each("eval_loss")),
        plot(say("metric.accuracy"), each("eval_accuracy"), write=_percent),
    ]
    return div("g-run", *plots) if any(plots) else div("g-empty", say("run.no_curves"))


def curves(say: Words, now: Progress) -> Html:
    """Show the losses, and small below them every other figure that the run has reported."""

    def curve(key: str, name: str = "", dots: bool = False) -> Curve:
        return Curve(name, now.curves.get(key, ()), dots)

    losses = [curve("loss", say("run.loss")), curve("eval_loss", say("run.eval_loss"), dots=True)]
    memory = Curve("", [(step, value / GIGABYTE) for step, value in now.curves.get("memory", ())])
    accuracy = curve("eval_accuracy", say("metric.accuracy"), dots=True)
    small = [
        plot(say("metric.accuracy"), [accuracy], now.steps, _percent),
        plot(say("run.learning_rate"), [curve("learning_rate")], now.steps),
        plot(say("run.tokens_per_s"), [curve("tokens_per_s")], now.steps),
        plot(say("run.memory"), [memory], now.steps),
    ]
    return join([plot(say("metric.loss"), losses, now.steps), div("g-plots", *small) if any(small) else None])


def _queued(say: Words, job: Run) -> Html:
    return notice(say("run.place", n=job.place))


def _running(say: Words, job: Run) -> Html:
    now = job.progress
    reached = PHASES.index(now.phase) if now.phase in PHASES else 0
    marks = ["g-past"] * reached + ["g-now"] + [""] * (len(PHASES) - reached - 1)
    steps = div("g-phases", *(span(mark, say(f"phase.{phase}")) for mark, phase in zip(marks, PHASES, strict=True)))
    share = {"train": now.step / now.steps if now.steps else None, "data": now.prepared}.get(now.phase)
    words = say("run.step", step=now.step, steps=now.steps) if now.steps else say(f"phase.{PHASES[reached]}")
    left = say("run.left", time=duration(say, now.left_s)) if now.left_s and now.phase == "train" else None
    line = div("g-ends", span("", words), span("", left) if left else None)
    return join([steps, bar(share), line, _tiles(say, now)])


def _tiles(say: Words, now: Progress) -> Html | None:
    """Show the newest figures, large."""
    tiles: dict[str, tuple[str, Callable[[float], str]]] = {
        "loss": ("run.loss", lambda y: f"{y:.3f}"),
        "eval_loss": ("run.eval_loss", lambda y: f"{y:.3f}"),
        "eval_accuracy": ("metric.accuracy", lambda y: figure("accuracy", y)),
        "learning_rate": ("run.learning_rate", lambda y: f"{y:.2g}"),
        "tokens_per_s": ("run.tokens_per_s", lambda y: f"{y:,.0f}"),
        "memory": ("run.memory_used", lambda y: f"{y / GIGABYTE:.1f} GB"),
    }
    shown = [
        div("g-tile", span("g-dim", say(name)), tag("b", write(now.latest[key])))
        for key, (name, write) in tiles.items()
        if key in now.latest
    ]
    return div("g-tiles", *shown) if shown else None


def _paused(say: Words, job: Run) -> Html:
    now = job.progress
    words = notice(tag("strong", say("run.is_paused", step=now.step, steps=now.steps)), kind="warn")
    return join([words, bar(now.step / now.steps) if now.steps else None])


def _done(say: Words, job: Run) -> Html:
    promoted, ref = bool(job.result.get("promoted")), str(job.result.get("version", ""))
    words = tag("strong", say("run.promoted" if promoted else "run.waits", version=ref))
    link = tag("button", say("run.open", version=ref), type="button", class_="g-link", data_open=ref)
    message = notice(words, tag("p", link) if ref else None, kind="good" if promoted else "warn")
    return join([message, figures(say, job.result.get("card") or {})])


def _failed(say: Words, job: Run) -> Html:
    return failure(GraftError(*(str(job.result.get(part) or "") for part in ("what", "why", "next"))))
