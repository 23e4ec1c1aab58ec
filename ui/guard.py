"""What stands around every handler of the page: a user reads sentences, never a traceback.

Gradio hides the text of every exception but its own `Error`, from the page and from API callers alike; so a
`GraftError` becomes one, and anything else is logged under a short id that the user can quote.
"""

from __future__ import annotations

import functools
import html
import inspect
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import gradio as gr

from errors import GraftError

log = logging.getLogger("graft")
F = TypeVar("F", bound=Callable[..., Any])


@contextmanager
def explained() -> Iterator[None]:
    """Turn whatever goes wrong inside into a `gr.Error` with a sentence."""
    try:
        yield
    except gr.Error:
        raise
    except Exception as error:
        raise gr.Error(_safe(sentence(error)), duration=15, title="Graft", print_exception=False) from None


def sentence(error: Exception) -> str:
    """What a user reads of it; what is no `GraftError` is logged under a number that the user can quote."""
    if isinstance(error, GraftError):
        return str(error)
    if isinstance(error, gr.Error):
        return str(error.message)
    number = secrets.token_hex(3)
    log.error("error %s", number, exc_info=error)
    return f"Something went wrong in Graft itself. The log has the details under {number}."


def kindly(handler: F) -> F:
    """`handler`, a function or a generator, within `explained`."""

    @functools.wraps(handler)
    def call(*values: Any, **named: Any) -> Any:  # noqa: ANN401 - any handler's
        with explained():
            return handler(*values, **named)

    @functools.wraps(handler)
    def stream(*values: Any, **named: Any) -> Iterator[Any]:  # noqa: ANN401
        with explained():
            yield from handler(*values, **named)

    return stream if inspect.isgeneratorfunction(handler) else call  # type: ignore[return-value]


def _safe(text: str) -> str:
    """The page shows messages as HTML and API callers as text, so only what could be markup is escaped."""
    return html.escape(text, quote=False)
