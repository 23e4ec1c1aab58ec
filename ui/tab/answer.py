"""Answers of a tab: a request is bound to a version, passed to the plugin's `predict`, and streamed to the page.

The columns of a comparison are several requests that begin at once and share the model's batches. A request that waits
shows its place in the queue.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import gradio as gr

from errors import InputError, Text
from models.chat_template import as_text
from plugins import OwnModel, TaskPlugin
from serving.lm import check_new_tokens
from settings import Settings
from store.adapters import BASE, LIVE, Version
from ui.context import Context, own_key
from ui.i18n import Words, request_words, t
from ui.pulse import chosen_of
from ui.train.continue_from import label as version_label
from ui.web.gradio_private import describe

LOOK_S = 0.5
"""Seconds after which the place of a waiting request in the queue is read again."""
UPDATE_S = 0.025
"""Seconds between two updates of a page, times the number of pages that receive answers, since updates take time from
the answers: one page is updated with every word, eight pages five times a second."""
_pages: set[SimpleQueue[Any]] = set()
"""One queue of updates for each page that receives an answer."""


def check(settings: Settings, given: Mapping[str, Any]) -> None:
    """Raise `InputError` where arguments of `predict` exceed the limits of the settings."""
    length = sum(len(text) for text in _texts(list(given.values())))
    if length > settings.text_length:
        template = "It says {n} characters; the limit is {limit} (GRAFT_TEXT_LENGTH)."
        why = Text(template, n=f"{length:,}", limit=f"{settings.text_length:,}")
        raise InputError("This is too long.", why, "Shorten it, or begin a new conversation.")
    tokens = given.get("max_new_tokens")
    if isinstance(tokens, int | float):
        check_new_tokens(settings, tokens)


def _texts(waiting: list[Any]) -> Iterator[str]:
    """Yield every text at any depth, without recursion."""
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)


def described(handler: Callable[..., Any], parameters: Sequence[inspect.Parameter], *more: str) -> Callable[..., Any]:
    """Give `handler` the signature that the API shows: the arguments of `predict`, then `more`, all optional."""
    names = [*(p.name for p in parameters), *more]
    shown = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None) for n in names]
    handler.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
    handler.__annotations__ = {}
    handler.predicts = [str(p) for p in parameters]  # type: ignore[attr-defined]
    return handler


def fill(parameters: Sequence[inspect.Parameter], given: Sequence[Any]) -> dict[str, Any]:
    """Return the arguments of `predict` by name, except those that are None and have a default."""
    pairs = zip(parameters, given, strict=True)
    return {p.name: value for p, value in pairs if value is not None or p.default is p.empty}


def plain_answer(outputs: Sequence[Any]) -> str | None:
    """Return the first output as a text: the likeliest label, or the last turn of a conversation; else None."""
    answer = outputs[0] if outputs else None
    if isinstance(answer, Mapping):
        return max(answer, key=answer.__getitem__, default=None)
    if isinstance(answer, list) and answer and isinstance(answer[-1], Mapping):
        return as_text(answer[-1].get("content"))
    return answer if isinstance(answer, str) else None


@dataclass(frozen=True)
class Answer:
    """The answer of a tab to one request, so far or complete, with the version that gave it."""

    value: Sequence[Any]
    """Values of the tab's outputs."""
    version: str
    base: str
    notes: Sequence[str]
    """Notes for the reader, in English."""
    asked: Mapping[str, Any]
    """The question as a training row; empty where no row could hold it."""
    ms: int
    """Milliseconds since the request."""

    @property
    def badge(self) -> dict[str, Any]:
        """Value of the badge (`badge.PROPERTIES`), its notes in the language of the request."""
        notes = [request_words().sentence(note) for note in self.notes]
        return {"version": self.version, "base": self.base, "ms": self.ms, "notes": notes}

    @property
    def record(self) -> dict[str, Any] | None:
        """Question, answer, version and labels, for a correction; None where no row could hold the question."""
        answer, first = plain_answer(self.value), next(iter(self.value), None)
        labels = [str(label) for label in first] if isinstance(first, Mapping) else []
        if not self.asked or answer is None:
            return None
        return {"row": dict(self.asked), "answer": answer, "version": self.version, "labels": labels}


@dataclass
class PendingAnswer:
    """A request that waits, is answered or has ended."""

    adapter: str
    filled: dict[str, Any]
    """Arguments of `predict`."""
    outputs: list[Any]
    badge: dict[str, Any] = field(default_factory=dict)
    """Empty until the answer begins."""
    record: dict[str, Any] | None = None
    """See `Answer.record`."""
    error: BaseException | None = None
    done: bool = False
    lender: Version | None = None
    """Version whose labels a base without any is asked."""
    lm: Any = None
    """The `lm` of `predict`, once the request is bound to one."""

    @property
    def whole(self) -> bool:
        """Return whether the answer is complete."""
        return self.done and bool(self.badge) and self.error is None

    @property
    def before(self) -> int:
        """Number of requests before this one."""
        return 0 if self.badge or self.done else int(getattr(self.lm, "before", 0))

    @property
    def status(self) -> dict[str, Any] | None:
        """Value of the badge: of the answer, or the place in the queue."""
        return self.badge or ({"before": self.before} if self.before else None)

    def show(self, answer: Answer) -> None:
        """Update the fields from the answer so far."""
        self.outputs, self.badge, self.record = list(answer.value), answer.badge, answer.record


def answers(context: Context, name: str, pending: PendingAnswer, adapter: str) -> Generator[Answer, None, None]:
    """Call `predict` and yield its answer each time it has grown. Raises `GraftError`."""
    start, filled = time.monotonic(), pending.filled
    context.load_models()
    plugin = context.plugin(name)
    check(context.settings, filled)
    text = next((value for value in filled.values() if isinstance(value, str) and value), None)
    with _bound(context, plugin, adapter, pending.lender) as lm:
        pending.lm = lm
        result = plugin.predict(lm, **filled)
        for value in result if inspect.isgenerator(result) else [result]:
            outputs = list(value) if isinstance(value, tuple) else [value]
            row = getattr(lm, "asked", None) or ({"text": text} if text else {})
            milliseconds = round(1000 * (time.monotonic() - start))
            yield Answer(outputs, str(lm.version), lm.base, tuple(lm.notes), row, milliseconds)


@contextmanager
def _bound(context: Context, plugin: TaskPlugin, adapter: str, lender: Version | None) -> Iterator[Any]:
    """Give the `lm` that `predict` receives: an LM of the pool, or the plugin's own module."""
    if plugin.brings_own():
        yield OwnModel(context.pool.own(own_key(plugin)), plugin.title)
        return
    spec = context.spec(plugin.name)
    if adapter not in (LIVE, BASE):
        context.adapters.get_for(spec.name, adapter)
    with context.pool.open(spec, adapter, lender) as lm:
        yield lm


def follow(
    context: Context, name: str, requests: Sequence[PendingAnswer], resolve: Callable[[str], str] = str
) -> Iterator[None]:
    """Answer requests in one thread each; yields when any of them has changed.

    `resolve` turns the choice of a version into a reference. Closing the iterator stops all requests.
    """
    news, stopped, due = SimpleQueue[PendingAnswer](), threading.Event(), 0.0
    for number, pending in enumerate(requests):
        # Gradio keeps the caller's request in context variables.
        run, work = contextvars.copy_context().run, (_answer, context, name, pending, resolve, news, stopped)
        threading.Thread(target=run, args=work, name=f"graft-answer-{number}", daemon=True).start()
    going = True
    _pages.add(news)
    try:
        while going:
            new = _wait(news, due)
            # Read before the yield, so that the last yield follows the last change.
            going = not all(pending.done for pending in requests)
            if new or any(pending.before for pending in requests):
                yield
                due = time.monotonic() + min(UPDATE_S * len(_pages), LOOK_S)
    finally:
        stopped.set()
        _pages.discard(news)


def _wait(news: SimpleQueue[PendingAnswer], due: float) -> bool:
    """Wait for an update, at most `LOOK_S`; returns whether there was one. Growth until `due` is one update."""
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
    pending: PendingAnswer,
    resolve: Callable[[str], str],
    news: SimpleQueue[PendingAnswer],
    stopped: threading.Event,
) -> None:
    try:
        growing = answers(context, name, pending, resolve(pending.adapter))
        with closing(growing):
            for answer in growing:
                if stopped.is_set():
                    return
                pending.show(answer)
                news.put(pending)
    except (Exception, SystemExit) as error:  # a plugin that calls exit() ends its request, not the thread
        pending.error = error
    finally:
        pending.done = True
        news.put(pending)


def handler_of(
    context: Context, plugin: TaskPlugin, parameters: Sequence[inspect.Parameter], width: int, keeps: bool
) -> Callable[..., Any]:
    """Return the handler of a tab, whose arguments are those of `predict`, then `adapter`.

    It yields or returns `width` outputs and the badge, and with `keeps` also the record for a correction.
    """
    name, end = plugin.name, None if keeps else -1

    def stream(*values: Any) -> Iterator[list[Any]]:  # noqa: ANN401 - whatever the components hold
        *given, adapter = values
        pending = PendingAnswer(adapter or LIVE, fill(parameters, given), [gr.skip()] * width)
        for _ in follow(context, name, [pending]):
            if pending.status:
                yield [*pending.outputs, pending.status, pending.record][:end]
        if pending.error:
            raise pending.error

    def once(*values: Any) -> list[Any]:  # noqa: ANN401
        *given, adapter = values
        pending = PendingAnswer(adapter or LIVE, fill(parameters, given), [])
        *_, last = answers(context, name, pending, pending.adapter)
        return [*last.value, last.badge, last.record][:end]

    return described(stream if plugin.streams() else once, parameters, "adapter")


def version_menu(value: str, label: str, more: str = "", **options: Any) -> gr.Dropdown:  # noqa: ANN401 - of Dropdown
    """Make a menu of versions; `more` ends the description of its values for API clients.

    Its choices come with the first poll of each page, so that the layout does not depend on the versions.
    """
    chosen = gr.Dropdown([value], value=value, label=t(label), allow_custom_value=True, interactive=True, **options)
    values = f"live, base, a name, or a version such as name@7{more}"
    describe(chosen, {"type": "string", "additional_description": values})
    return chosen


def choices_of(context: Context, name: str) -> Callable[[Words, str | None], list[Any]]:
    """Return the refresh of a tab's menu of versions."""
    return lambda say, chosen: [chosen_of(menu(context, name, say), chosen, LIVE)]


def menu(context: Context, name: str, say: Words) -> list[tuple[str, str]]:
    """Return the choices of a tab's menu of versions: live, the base, and each version."""
    live, own = context.adapters.live(name), context.spec(name).model
    return [
        (say("task.live", version=version_label(live, own) if live else say("task.base")), LIVE),
        (say("task.base"), BASE),
        *((version_label(version, own), version.ref) for version in context.adapters.versions(name)),
    ]
