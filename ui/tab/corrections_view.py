"""HTML of a tab's corrections: their number, the state of the run that trains on them, and their list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from store.adapters import BASE
from store.corrections import Correction
from ui.html.format import short
from ui.html.tags import Html, bar, div, failure, join, notice, span, tag
from ui.i18n import Words

if TYPE_CHECKING:
    from training.runs.run import Run

LISTED = 100
"""Most corrections that the list shows; the download has all."""
COARSE = 50
"""Positions of the progress bar, so that it is not redrawn at every step."""
GO = """element.addEventListener('click', (event) => {
  const link = event.target.closest('[data-go]');
  if (!link) return;
  const found = [...document.querySelectorAll(`button[role=tab][data-tab-id="${link.dataset.go}"]`)];
  (found.find((tab) => tab.offsetParent) || found[0])?.click();
  scrollTo({top: 0, behavior: 'smooth'});
});"""
"""JavaScript that opens the tab that a link names."""
CHOOSE = """element.addEventListener('click', (event) => {
  const row = event.target.closest('[data-correction]');
  if (row) trigger('select', {id: row.dataset.correction});
});"""
"""JavaScript that sends the id of a clicked correction."""


def question(say: Words, correction: Correction) -> Html:
    """Show a question and the answer of a version."""
    version = say("task.base") if correction.version in ("", BASE) else correction.version
    return div(
        "g-asked", div("g-quote", short(correction.question, 400)), span("g-dim", f"{version}: "), _answer(correction)
    )


def summary(say: Words, found: Sequence[Correction], run: Run | None) -> Html:
    """Show the state of the latest run on the corrections, and their number."""
    new = sum(not correction.taught for correction in found)
    counted = span("g-dim", say("teach.count", n=len(found), new=new)) if found else None
    return join([lesson(say, run), counted])


def lesson(say: Words, run: Run | None) -> Html:
    """Show the progress or the result of a run on corrections."""
    if run is None:
        return Html("")
    if run.active:
        return _going(say, run)
    if run.state == "done":
        return _done(say, run.result)
    if run.state in ("failed", "interrupted"):
        return failure(run.error)
    return notice(say("teach.stopped"), " ", _link(say("teach.run"), "train"), kind="warn")


def listed(say: Words, found: Sequence[Correction]) -> Html:
    """List corrections; a click on one opens it (`CHOOSE`)."""
    return div("g-corrections", *(_row(say, correction) for correction in found[:LISTED]))


def _going(say: Words, run: Run) -> Html:
    now = run.progress
    share = round(COARSE * now.step / now.steps) / COARSE if now.steps and now.phase == "train" else None
    phase = say("run.place", n=run.place) if run.place else say(f"phase.{now.phase}")
    words = span("", say("teach.going"), " ", span("g-dim", phase))
    return notice(div("g-ends", words, _link(say("teach.run"), "train")), bar(share))


def _done(say: Words, result: Mapping[str, Any]) -> Html:
    card = result.get("card") or {}
    promoted, version = bool(result.get("promoted")), result.get("version", "")
    what = tag("strong", say("teach.promoted" if promoted else "teach.held_back", version=version))
    why = None if promoted else say("teach.alone" if card.get("alone") else "teach.worse")
    lines = [learned(say, card.get("corrections")), why]
    parts = [tag("p", line) for line in lines if line]
    link = tag("p", _link(say("teach.card"), "adapters"))
    return notice(what, *parts, link, kind="good" if promoted else "warn")


def learned(say: Words, facts: Mapping[str, Any] | None) -> str:
    """Write the number of corrections that the new and the earlier version answer right, from a card."""
    if not facts:
        return ""
    after = say("teach.learned", n=facts["new"], rows=facts["rows"])
    before = facts.get("before")
    return after if before is None else f"{after} {say('teach.before', n=before)}"


def _row(say: Words, correction: Correction) -> Html:
    mark = span("g-live", correction.taught) if correction.taught else span("g-dim", say("teach.new"))
    answers = div("", _answer(correction), " → ", tag("b", short(correction.target)))
    attributes = {"type": "button", "data_correction": correction.id, "title": say("teach.edit")}
    return tag("button", div("g-quote", short(correction.question)), answers, mark, **attributes, class_="g-correction")


def _answer(correction: Correction) -> Html:
    return tag("del", short(correction.answered or "…"))


def _link(text: str, page: str) -> Html:
    return tag("button", text, type="button", data_go=page, class_="g-link")
