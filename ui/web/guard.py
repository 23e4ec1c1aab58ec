"""What stands around every handler of the page: who may not do it is refused, and a user reads no traceback.

Gradio hides the text of every exception but its own `Error`, from the page and from API callers alike; so a
`GraftError` becomes one, and anything else is logged under a short id that the user can quote.
"""

from __future__ import annotations

import functools
import html
import inspect
import logging
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import gradio as gr

from errors import GraftError
from ui.i18n import asked
from ui.web.access import Access, Action, permitted

log = logging.getLogger("graft")
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def explained() -> Iterator[None]:
    """Turn whatever goes wrong inside into a `gr.Error` with a sentence."""
    try:
        yield
    except gr.Error:
        raise
    except (Exception, SystemExit) as error:  # a plugin that calls exit() ends its request, and not the server
        raise gr.Error(_safe(sentence(error)), duration=15, title="Graft", print_exception=False) from None


def sentence(error: BaseException) -> str:
    """What a user reads of it; what is no `GraftError` is logged under a number that the user can quote."""
    say = asked()
    if isinstance(error, GraftError):
        told = " ".join(say.sentence(part) for part in (error.what, error.why, error.next) if part)
        return told.replace("。 ", "。")  # no space stands between Chinese sentences
    if isinstance(error, gr.Error):
        return str(error.message)
    number = secrets.token_hex(3)
    log.error("error %s", number, exc_info=error)
    return say.sentence(f"Something went wrong in Graft itself. The log has the details under {number}.")


def guarded(access: Access, action: Action, handler: F, silently: bool = False) -> F:
    """`handler`, a function or a generator, for those who may do `action`, within `explained`.

    Gradio gives the request to whatever parameter has its type, so the guard takes one of its own, before the others.
    """

    @functools.wraps(handler)
    def call(caller: gr.Request, /, *values: Any, **named: Any) -> Any:  # noqa: ANN401 - any handler's
        with explained():
            user = access.user(caller)
            if silently and not permitted(user, action):
                return gr.skip()
            access.check(user, action)
            return handler(*values, **named)

    @functools.wraps(handler)
    def stream(caller: gr.Request, /, *values: Any, **named: Any) -> Iterator[Any]:  # noqa: ANN401
        with explained():
            user = access.user(caller)
            if silently and not permitted(user, action):
                yield gr.skip()
                return
            access.check(user, action)
            yield from handler(*values, **named)

    found: Any = stream if inspect.isgeneratorfunction(handler) else call
    taken = inspect.signature(handler)
    own = inspect.Parameter("caller", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found.__signature__ = taken.replace(parameters=[own, *taken.parameters.values()])
    found.__annotations__ = {**getattr(handler, "__annotations__", {}), "caller": gr.Request}
    found.action = action
    return found  # type: ignore[no-any-return]


def _safe(text: str) -> str:
    """The page shows messages as HTML and API callers as text, so only what could be markup is escaped."""
    return html.escape(redacted(text), quote=False)


def redacted(text: str) -> str:
    """A text without tokens of the Hub, which libraries put into their messages with an address or a header."""
    return TOKEN.sub("hf_...", text)


class Redacting(logging.Formatter):
    """Writes a log without them, tracebacks too."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return redacted(super().format(record))


def log_without_tokens() -> None:
    """Let whatever this process logs go through `Redacting`."""
    handler = logging.StreamHandler()
    handler.setFormatter(Redacting("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
