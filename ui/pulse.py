"""How an open page follows what changes behind it: one short request a second, for everything that may be new."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from ui.i18n import LANGUAGES, Words, texts, words
from ui.web.access import Access, Action, User, permitted
from ui.web.guard import guarded

log = logging.getLogger("graft")

PULSE_S = 1.0
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How events run that are not work: past the queue, with no sign on the page, not for API callers.

Gradio shows no error of an event past the queue, so this is not for what a person asks for and may be refused.
"""
ASKED: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How events run that a person asks for and that may be refused: as `QUIET`, but what went wrong is shown."""


@dataclass(frozen=True)
class LiveView:
    """A part of the page that goes by something behind it."""

    taken: Sequence[Component]
    """Components whose values `mark` and `refresh` receive after the words."""
    shown: Sequence[Component]
    """Components that `refresh` updates."""
    mark: Callable[..., object]
    """What the part would show, in short: cheap to compute, and another when it must be shown anew."""
    refresh: Callable[..., Sequence[Any]]
    """The updates for `shown`."""
    action: Action = Action.LOOK
    """What its reader must be allowed to do; for others it stays as the layout has it."""

    def handler(self, access: Access, silently: bool = False) -> Callable[..., Any]:
        """`refresh` as an event handler of its own, for what must not wait for the next beat."""

        def refresh(request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio updates
            updates = list(self.refresh(words(request), *values))
            return updates if len(updates) > 1 else updates[0]

        return guarded(access, self.action, refresh, silently)


class PagePoll:
    """The page's one timer, and who follows it."""

    def __init__(self, access: Access, before: Callable[[], None]) -> None:
        """`before` runs at each beat."""
        self._access, self._before = access, before
        self._followers: list[LiveView] = []

    def add(self, follower: LiveView) -> LiveView:
        """Let a part of the page follow."""
        self._followers.append(follower)
        return follower

    @contextmanager
    def reserved(self, action: Action, others: bool = False) -> Iterator[None]:
        """A column for what only those see who may do `action`; with `others`, for what all but they see.

        What it hides is refused by its handlers too: a browser can ask for whatever the layout does not show.
        """
        everybody = self._access.mode == "local"
        with gr.Column(visible=everybody != others, elem_classes="g-reserved") as column:
            yield
        self.add(LiveView([], [column], lambda say: "", lambda say: [gr.update(visible=not others)], action))

    def connect(self, demo: gr.Blocks) -> None:
        """Place the timer; to be called once, after every `add`."""
        seen, timer = gr.State({}), gr.Timer(PULSE_S)
        taken = [seen, *(c for follower in self._followers for c in follower.taken)]
        shown = [seen, *(c for follower in self._followers for c in follower.shown)]
        beat = guarded(self._access, Action.LOOK, self._beat)
        timer.tick(beat, taken, shown, js=_check(), **QUIET)
        demo.load(beat, taken, shown, **QUIET)

    def _beat(self, request: gr.Request, seen: dict[int, str], *values: Any) -> list[Any]:  # noqa: ANN401
        self._before()
        user, say, rest = self._access.user(request), words(request), list(values)
        now, updates = dict(seen), list[Any]()
        for number, follower in enumerate(self._followers):
            own, rest = rest[: len(follower.taken)], rest[len(follower.taken) :]
            mark, fresh = _look(follower, user, say, own, seen.get(number))
            now[number] = mark
            updates += fresh
        return [now if now != seen else gr.skip(), *updates]


CHECK = """async (...values) => {
  const config = window.gradio_config;
  try {
    const answer = await fetch(config.root + config.api_prefix + '/app_id');
    if ((await answer.json()).app_id === config.app_id) return values;
  } catch (error) {
    return values;
  }
  const said = navigator.language.startsWith('zh') ? WORDS[1] : WORDS[0];
  if (document.querySelector('.g-stale')) return new Promise(() => {});
  const box = Object.assign(document.createElement('button'), {className: 'g-stale', textContent: said});
  box.onclick = () => location.reload();
  document.body.append(box);
  return new Promise(() => {});
}"""
"""Runs in the browser before each beat: a page whose tabs were exchanged behind it says so once and stops asking."""


def _check() -> str:
    said = [texts(language)["page.stale"] for language in LANGUAGES]
    return CHECK.replace("WORDS", json.dumps(said))


def _look(follower: LiveView, user: User, say: Words, values: Sequence[Any], seen: str | None) -> tuple[str, list[Any]]:
    """A follower's mark, and its updates if the mark is not the one that the page has seen."""
    nothing: list[Any] = [gr.skip()] * len(follower.shown)
    if not permitted(user, follower.action):
        return seen or "", nothing
    try:
        mark = f"{say.language} {follower.mark(say, *values)}"
        return (mark, nothing) if mark == seen else (mark, list(follower.refresh(say, *values)))
    except Exception:
        # What one part cannot show must not keep the others from following.
        log.exception("a part of the page cannot be brought up to date")
        return seen or "", nothing


def chosen_of(found: Sequence[tuple[str, str]], chosen: str | None, default: str | None) -> Any:  # noqa: ANN401 - an update
    """A menu's update: the choices there are, and `default` where what was chosen is none of them.

    What was chosen is not sent back: another choice made meanwhile would be undone.
    """
    known = chosen in {value for _, value in found}
    return gr.update(choices=found) if known else gr.update(choices=found, value=default)
