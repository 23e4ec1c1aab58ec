"""The one place where HTML is made. Every text is escaped here, so that no value can become markup.

`gr.HTML` neither sanitizes nor escapes, and fills its templates by compiling them as code. So a page part is built
from `tag` alone and handed to Gradio as a finished value, never as a template with values in it.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from errors import GraftError
from ui.i18n import readable

Child = object


class Html(str):
    """Markup that was made here and needs no more escaping."""

    __slots__ = ()


def escape(value: object) -> Html:
    """A value as text in markup."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(children: Iterable[Child]) -> Html:
    """Children one after the other, numbers as people read them; None is left out."""
    return Html("".join(escape(readable(child)) for child in children if child is not None))


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """An element. `class_` is the attribute class; an attribute that is None or False is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def div(class_: str, *children: Child) -> Html:
    """A block of a class of ours."""
    return tag("div", *children, class_=class_)


def span(class_: str, *children: Child) -> Html:
    """Words of a class of ours."""
    return tag("span", *children, class_=class_)


def bar(share: float | None, class_: str = "") -> Html:
    """A bar that is `share` (0..1) full; None is a bar that moves, for what cannot be measured."""
    width = f"width:{100 * min(1.0, max(0.0, share)):.1f}%" if share is not None else None
    waiting = " g-waiting" if share is None else ""
    return div(f"g-bar {class_}{waiting}", tag("i", style=width))


def line(name: str, share: float, value: object, class_: str = "") -> Html:
    """A name, a bar that is `share` full, and a value."""
    return div("g-line", span("", name), bar(share, class_), span("g-n", value))


def measured_line(
    name: str,
    share: float,
    bounds: tuple[float, float] | None,
    value: object,
    class_: str = "",
    said: str | None = None,
) -> Html:
    """A name, a bar with its interval drawn across it as a whisker, and a value; `said` is the interval in words."""
    whisker = None
    if bounds:
        low, high = (100 * min(1.0, max(0.0, bound)) for bound in bounds)
        whisker = tag("b", style=f"left:{low:.1f}%;width:{high - low:.1f}%")
    return tag("div", span("", name), div("g-range", bar(share, class_), whisker), span("g-n", value), class_="g-line",
               title=said)  # fmt: skip


def table(head: Sequence[Child], rows: Iterable[Sequence[Child]], class_: str = "") -> Html:
    """A table that scrolls in itself where the screen is narrower."""
    body = (tag("tr", *(tag("td", cell) for cell in row)) for row in rows)
    inner = tag("table", tag("thead", tag("tr", *(tag("th", cell) for cell in head))), tag("tbody", *body))
    return div(f"g-table {class_}", inner)


def folded(title: Child, *children: Child) -> Html:
    """Something to unfold."""
    return tag("details", tag("summary", title), *children, class_="g-fold")


def notice(*children: Child, kind: str = "info") -> Html:
    """A box that says something: info, warn or bad."""
    return div(f"g-notice g-{kind}", *children)


def failure(error: GraftError) -> Html:
    """What went wrong, why, and what to do next."""
    rest = (tag("p", part) for part in (error.why, error.next) if part)
    return notice(tag("strong", error.what), *rest, kind="bad")
