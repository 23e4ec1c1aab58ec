"""Polling of an open page: one request a second refreshes the parts of the page that have changed."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from ui.html.tags import Html
from ui.i18n import LANGUAGES, Words, texts, words
from ui.web.access import Access, Action, User, guarded, permitted

log = logging.getLogger("graft")

PULSE_S = 1.0
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of quick events: not queued, no sign of progress, not for API clients.

Gradio shows no errors of events that are not queued, so a click that may be refused needs `ASKED`.
"""
ASKED: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of events that may be refused: as `QUIET`, but queued, so that errors are shown."""
Updates = dict[Any, Any]
"""Updates of Gradio by component; components that are not named stay as they are."""


@dataclass(frozen=True)
class LiveView:
    """A part of the page that is refreshed when its mark changes."""

    inputs: Sequence[Component]
    """Components whose values `mark` and `refresh` receive, after the `Words` of the request."""
    outputs: Sequence[Component]
    """Components that `refresh` updates."""
    mark: Callable[..., object]
    """Returns a value, cheap to compute, that differs whenever the part must be refreshed."""
    refresh: Callable[..., Sequence[Any]]
    """Returns the updates of `outputs`."""
    action: Action = Action.LOOK
    """Action that a user must be permitted; for others the part is never refreshed."""

    @classmethod
    def of_html(cls, box: gr.HTML, shown: Callable[[Words], Html]) -> LiveView:
        """Return a view of one component, whose HTML is its own mark."""
        return cls([], [box], lambda say: hash(shown(say)), lambda say: [shown(say)])

    def handler(self, access: Access, silently: bool = False) -> Callable[..., Any]:
        """Return `refresh` as an event handler, for a refresh before the next poll."""

        def refresh(request: gr.Request, *values: Any) -> Any:  # noqa: ANN401 - Gradio updates
            updates = list(self.refresh(words(request), *values))
            return updates if len(updates) > 1 else updates[0]

        return guarded(access, self.action, refresh, silently)


class PagePoll:
    """The timer of a page and the live views that it refreshes."""

    def __init__(self, access: Access, before: Callable[[], None]) -> None:
        """`before` is called at each poll."""
        self._access, self._before = access, before
        self.views: list[LiveView] = []
        self._signals: list[gr.Textbox] = []

    def add(self, view: LiveView) -> LiveView:
        """Add a live view and return it."""
        self.views.append(view)
        return view

    def signal(self) -> gr.Textbox:
        """Return a hidden component, outside of all tabs, for updates whose `change` event starts another event.

        In a tab it would not do: the browser reports changes only of the components that it draws.
        """
        self._signals.append(gr.Textbox("", visible="hidden", show_label=False, elem_classes="g-unseen", render=False))
        return self._signals[-1]

    @contextmanager
    def reserved(self, action: Action, others: bool = False) -> Iterator[None]:
        """Place a column that is shown to users who may do `action`; with `others`, to all other users.

        Its handlers must be `guarded` all the same: a browser can call them whatever the layout shows.
        """
        everybody = self._access.mode == "local"
        with gr.Column(visible=everybody != others, elem_classes="g-reserved") as column:
            yield
        self.add(LiveView([], [column], lambda say: "", lambda say: [gr.update(visible=not others)], action))

    def connect(self, demo: gr.Blocks) -> None:
        """Place the timer and the signals; to be called once, after every `add`."""
        for signal in self._signals:
            signal.render()  # type: ignore[no-untyped-call]
        seen, timer = gr.State({}), gr.Timer(PULSE_S)
        inputs = [seen, *(c for view in self.views for c in view.inputs)]
        outputs = [seen, *(c for view in self.views for c in view.outputs)]
        poll = guarded(self._access, Action.LOOK, self._poll)
        stale = json.dumps([texts(language)["page.stale"] for language in LANGUAGES])
        timer.tick(poll, inputs, outputs, js=CHECK.replace("TEXTS", stale), **QUIET)
        demo.load(poll, inputs, outputs, **QUIET)

    def _poll(self, request: gr.Request, seen: dict[int, str], *values: Any) -> list[Any]:  # noqa: ANN401
        self._before()
        user, say, rest = self._access.user(request), words(request), list(values)
        now, updates = dict(seen), list[Any]()
        for number, view in enumerate(self.views):
            own, rest = rest[: len(view.inputs)], rest[len(view.inputs) :]
            now[number], fresh = look(view, user, say, own, seen.get(number))
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
  const text = navigator.language.startsWith('zh') ? TEXTS[1] : TEXTS[0];
  if (document.querySelector('.g-stale')) return new Promise(() => {});
  const box = Object.assign(document.createElement('button'), {className: 'g-stale', textContent: text});
  box.onclick = () => location.reload();
  document.body.append(box);
  return new Promise(() => {});
}"""
"""JavaScript before each poll: a page whose tabs were replaced offers a reload once and stops polling."""


def look(view: LiveView, user: User, say: Words, values: Sequence[Any], seen: str | None) -> tuple[str, list[Any]]:
    """Return a view's mark, and its updates if the mark is not `seen`, the one of the last refresh."""
    nothing: list[Any] = [gr.skip()] * len(view.outputs)
    if not permitted(user, view.action):
        return seen or "", nothing
    try:
        mark = f"{say.language} {view.mark(say, *values)}"
        return (mark, nothing) if mark == seen else (mark, list(view.refresh(say, *values)))
    except Exception:
        # The failure of one part must not keep the others from being refreshed.
        log.exception("a part of the page cannot be refreshed")
        return seen or "", nothing


def in_order(outputs: Sequence[Any], show: Callable[..., Updates]) -> Callable[..., list[Any]]:
    """Return `show` as a `LiveView` refreshes: with its updates in the order of `outputs`."""

    def refresh(*values: object) -> list[Any]:
        updates = show(*values)
        return [updates[output] for output in outputs]

    return refresh


def chosen_of(found: Sequence[tuple[str, str]], chosen: str | None, default: str | None) -> Any:  # noqa: ANN401 - an update
    """Return a menu's update: its choices, and `default` where the chosen value is none of them.

    A valid choice is not sent back, which would undo one that was made meanwhile.
    """
    known = chosen in {value for _, value in found}
    return gr.update(choices=found) if known else gr.update(choices=found, value=default)
