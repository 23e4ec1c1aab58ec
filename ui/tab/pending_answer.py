"""Requests to a plugin that wait, are answered and end, each in a thread of its own, watched by the page meanwhile.

Several begin at once and share the model's batches: the columns of a comparison. One alone is a tab's own request. As
long as one waits, it says how many others are before it.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from store.adapters import Version
from ui.context import Context
from ui.tab.answer import answers

LOOK_S = 0.5
"""How often it is looked where a request stands in the line."""
UPDATE_S = 0.025
"""How long each page goes without an update for each that is followed: telling pages takes from what they wait for. One
alone sees every word as it is written; eight are told five times a second, of what was written since."""
Resolve = Callable[[str], str]
"""What a choice of version means now; may raise `AdapterError`."""


@dataclass
class PendingAnswer:
    """One request as it is now."""

    adapter: str
    filled: dict[str, Any]
    """The arguments of `predict`."""
    outputs: list[Any]
    badge: dict[str, Any] = field(default_factory=dict)
    """Empty until something was answered."""
    kept: Any = None
    """What a correction needs."""
    error: BaseException | None = None
    done: bool = False
    lender: Version | None = None
    """The version whose labels a base is asked that has none."""
    lm: Any = None
    """What `predict` was given, once it is bound."""

    @property
    def whole(self) -> bool:
        """Whether it was answered to the end."""
        return self.done and bool(self.badge) and self.error is None

    @property
    def before(self) -> int:
        """How many requests wait before this one."""
        return 0 if self.badge or self.done else int(getattr(self.lm, "before", 0))

    @property
    def told(self) -> dict[str, Any] | None:
        """The badge, or until there is one the place in the line."""
        return self.badge or ({"before": self.before} if self.before else None)

    def bind(self, lm: Any) -> None:  # noqa: ANN401 - an LM or an OwnModel
        """Take note of what answers, and lend it labels."""
        self.lm = lm
        if self.lender:
            lm.lender = self.lender

    def show(self, outputs: Sequence[Any], badge: dict[str, Any], kept: Any) -> None:  # noqa: ANN401
        """Take the answer as it is now."""
        self.outputs, self.badge, self.kept = list(outputs), dict(badge), kept


def follow(context: Context, name: str, askings: Sequence[PendingAnswer], resolve: Resolve = str) -> Iterator[None]:
    """Let all be answered at once; yields when any has something new, or waits. Closing it stops them all."""
    news, stopped, due = SimpleQueue[PendingAnswer](), threading.Event(), 0.0
    for number, asking in enumerate(askings):
        # Each has a copy of the context variables, in which Gradio keeps whose request this is.
        run, work = contextvars.copy_context().run, (_answer, context, name, asking, resolve, news, stopped)
        threading.Thread(target=run, args=work, name=f"graft-asking-{number}", daemon=True).start()
    going = True
    _followed.add(news)
    try:
        while going:
            new = _wait(news, due)
            # Asked before anything is shown, so that the last to end is among what is shown last.
            going = not all(asking.done for asking in askings)
            if new or any(asking.before for asking in askings):
                yield
                due = time.monotonic() + min(UPDATE_S * len(_followed), LOOK_S)
    finally:
        stopped.set()
        _followed.discard(news)


_followed: set[SimpleQueue[PendingAnswer]] = set()
"""The news of every page that is answered."""


def _wait(news: SimpleQueue[PendingAnswer], due: float) -> bool:
    """Until there is something new, or it is time to look; what comes until `due` is shown together, an end at once."""
    try:
        new = news.get(timeout=LOOK_S)
        with suppress(Empty):
            while not new.done:
                new = news.get(timeout=max(0.0, due - time.monotonic()))
    except Empty:
        return False
    return True


def _answer(
    context: Context,
    name: str,
    asking: PendingAnswer,
    resolve: Resolve,
    news: SimpleQueue[PendingAnswer],
    stopped: threading.Event,
) -> None:
    """One request, from its thread."""
    try:
        growing = answers(context, name, asking.filled, resolve(asking.adapter), asking.bind)
        with closing(growing):
            for *outputs, badge, kept in growing:
                if stopped.is_set():
                    return
                asking.show(outputs, badge, kept)
                news.put(asking)
    except (Exception, SystemExit) as error:  # a plugin that calls exit() ends its request, and says so
        asking.error = error
    finally:
        asking.done = True
        news.put(asking)
