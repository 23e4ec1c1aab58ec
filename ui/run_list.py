"""The table of runs: newest first; a row is chosen by a click, and several by their boxes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from ui.render import Html, bar, div, span, tag
from ui.strings import Words
from ui.views import day, duration, figure

if TYPE_CHECKING:
    from training.record import Run

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
