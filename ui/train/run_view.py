"""HTML of runs on the Train page: the estimate of one, their table, one with its curves, and the curves of several."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from errors import GraftError
from training.config import TENSORBOARD, TRACKERS, TRACKIO
from training.estimate.advice import gigabytes, suggestions
from training.estimate.estimate import estimate_run, seconds_a_step
from training.estimate.training_memory import RunPlan
from training.events import PHASES
from training.runs.run import Run
from training.runs.run_progress import Progress
from ui.adapters import card_view
from ui.html.format import day, duration, figure
from ui.html.plot import PATTERNS, Curve, plot
from ui.html.tags import Html, bar, div, failure, join, notice, span, table, tag
from ui.i18n import Words

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


def estimate(say: Words, plan: RunPlan | None, home: Path) -> tuple[Html, bool]:
    """Show the needs of a planned run and, where it does not fit, changes that would make it; returns whether it fits.

    `plan` is None where the base is not known.
    """
    if plan is None:
        return notice(say("estimate.unknown")), True
    found = estimate_run(plan)
    memory, free, disk = map(gigabytes, (found.peak, found.free, found.stored))
    needs = say("estimate.needs", memory=memory, free=free, disk=disk, steps=found.steps)
    refused = None
    if not found.fits:
        what = tag("strong", say("estimate.no_disk" if found.fits_memory else "estimate.no_memory"))
        advice = [] if found.fits_memory else suggestions(plan)
        refused = notice(what, tag("ul", *(tag("li", one) for one in advice)) if advice else None, kind="bad")
    seconds, runs = seconds_a_step(home, found)
    known = [say("estimate.by_runs", time=duration(say, seconds * found.steps), n=runs)] if runs else []
    known += [say("estimate.checkpointing")] if found.checkpointing else []
    rest = div("g-dim", " · ".join(known)) if known else None
    parts = _memory_parts(say, found.memory, found.free)
    return div("g-estimated", tag("b", needs), parts, refused, rest), found.fits


def _memory_parts(say: Words, memory: Mapping[str, int], free: int) -> Html:
    """Show a bar of the parts of a run's memory in bytes, as wide as the larger of the free and the needed memory."""
    whole = max(1, free, sum(memory.values()))
    pieces, names = list[Html](), list[Html]()
    for i, (name, size) in enumerate((name, size) for name, size in memory.items() if size):
        pieces.append(tag("i", class_=f"g-part{i}", style=f"width:{100 * size / whole:.2f}%"))
        words = f"{say(f'estimate.{name}')} {gigabytes(size)}"
        names.append(span("g-key", tag("i", class_=f"g-part{i}"), words))
    return join([div("g-stack", *pieces), div("g-keys g-dim", *names)])


def _expected_and_used(say: Words, run: Run) -> Html | None:
    """Show the expected memory of a run beside the measured one, as far as it has come."""
    result = run.result
    expected, measured = result.get("estimate") or run.progress.estimate, result.get("measured") or {}
    try:
        memory = gigabytes(expected["peak"])
        if not measured:
            return div("g-dim", say("estimate.expected", memory=memory))
        took = duration(say, sum(measured["seconds"].values()))
        return div("g-dim", say("estimate.truth", memory=memory, peak=gigabytes(measured["peak"]), took=took))
    except (KeyError, TypeError, AttributeError):
        return None  # a run of an earlier Graft


def runs_table(say: Words, runs: Sequence[Run], chosen: Collection[str], titled: Callable[[str], str] = str) -> Html:
    """Show a row for each run; those in `chosen` are marked. `titled` returns the title of a tab by its name."""
    if not runs:
        return Html("")
    head = [say(f"run.{name}") for name in ("compare", "name", "state", "tab", "figure", "began", "took")]
    return table(head, (_row(say, run, run.id in chosen, titled(run.plugin)) for run in runs[:LISTED]), "g-runlist")


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


def details(say: Words, run: Run, tab: str = "") -> Html:
    """Show a run: the title of its tab, its progress or its result, and its curves."""
    head = div("g-run-head", tag("b", run.name), state(say, run))
    facts = span("g-dim", " · ".join((tab or run.plugin, run.data, run.id)))
    body = None
    if run.state == "queued":
        body = notice(say("run.place", n=run.place))
    elif run.state in ("failed", "interrupted"):
        body = failure(run.error)
    elif view := {"running": _running, "paused": _paused, "done": _done}.get(run.state):
        body = view(say, run)
    used = _expected_and_used(say, run)
    return div("g-run", head, facts, used, body, curves(say, run.progress), _tracked(say, run))


def _tracked(say: Words, run: Run) -> Html | None:
    """Show the commands that open the tools that the run was tracked with."""
    folder, commands = run.folder.parent, []
    if (run.folder / TENSORBOARD).exists():
        commands.append(f"tensorboard --logdir {shlex.quote(str(folder))}")
    with suppress(GraftError):
        if run.state != "queued" and TRACKIO in TRACKERS[run.config.track]:
            home = shlex.quote(str(folder.parent / TRACKIO))
            commands.append(f"TRACKIO_DIR={home} trackio show --project {run.name}")
    return notice(*(tag("p", say("run.look"), tag("code", command)) for command in commands)) if commands else None


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def several(say: Words, runs: Sequence[Run]) -> Html:
    """Show the losses of several runs on the same axes and, where they classify, their accuracies."""
    found = [(f"{run.name} {run.id[9:15]}", run.progress.curves) for run in runs[:PATTERNS]]

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


def _running(say: Words, run: Run) -> Html:
    now = run.progress
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


def _paused(say: Words, run: Run) -> Html:
    now = run.progress
    words = notice(tag("strong", say("run.is_paused", step=now.step, steps=now.steps)), kind="warn")
    return join([words, bar(now.step / now.steps) if now.steps else None])


def _done(say: Words, run: Run) -> Html:
    promoted, ref = bool(run.result.get("promoted")), str(run.result.get("version", ""))
    words = tag("strong", say("run.promoted" if promoted else "run.waits", version=ref))
    link = tag("button", say("run.open", version=ref), type="button", class_="g-link", data_open=ref)
    message = notice(words, tag("p", link) if ref else None, kind="good" if promoted else "warn")
    return join([message, card_view.summary(say, run.result.get("card") or {})])
