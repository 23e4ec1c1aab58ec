"""HTML, made nowhere else. Every text is escaped here, so that no value can become markup.

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
    """Markup made by this module, which is not escaped again."""

    __slots__ = ()


def escape(value: object) -> Html:
    """Return a value as text for markup."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def join(children: Iterable[Child]) -> Html:
    """Concatenate children; whole numbers get separators of thousands, None is left out."""
    return Html("".join(escape(readable(child)) for child in children if child is not None))


def tag(name: str, /, *children: Child, **attributes: object) -> Html:
    """Make an element; `class_` is the attribute `class`, and attributes that are None or False are left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>{join(children)}</{name}>")


def div(class_: str, *children: Child) -> Html:
    """Make a `div` with a class."""
    return tag("div", *children, class_=class_)


def span(class_: str, *children: Child) -> Html:
    """Make a `span` with a class."""
    return tag("span", *children, class_=class_)


def bar(share: float | None, class_: str = "") -> Html:
    """Make a progress bar that is `share` (0..1) full; None makes one that moves."""
    width = f"width:{100 * min(1.0, max(0.0, share)):.1f}%" if share is not None else None
    waiting = " g-waiting" if share is None else ""
    return div(f"g-bar {class_}{waiting}", tag("i", style=width))


def line(
    name: str,
    share: float,
    value: object,
    class_: str = "",
    bounds: tuple[float, float] | None = None,
    title: str | None = None,
) -> Html:
    """Make a row of a name, a bar that is `share` full, and a value.

    `bounds` is an interval that is drawn across the bar, and `title` the text that describes it.
    """
    shown = bar(share, class_)
    if bounds:
        low, high = (100 * min(1.0, max(0.0, bound)) for bound in bounds)
        shown = div("g-range", shown, tag("b", style=f"left:{low:.1f}%;width:{high - low:.1f}%"))
    return tag("div", span("", name), shown, span("g-n", value), class_="g-line", title=title)


def table(head: Sequence[Child], rows: Iterable[Sequence[Child]], class_: str = "") -> Html:
    """Make a table that scrolls by itself on a narrow screen; a row is its cells, or a finished `tr`."""
    body = (row if isinstance(row, Html) else tag("tr", *(tag("td", cell) for cell in row)) for row in rows)
    inner = tag("table", tag("thead", tag("tr", *(tag("th", cell) for cell in head))), tag("tbody", *body))
    return div(f"g-table {class_}", inner)


def folded(title: Child, *children: Child) -> Html:
    """Make a `details` element that unfolds by its title."""
    return tag("details", tag("summary", title), *children, class_="g-fold")


def notice(*children: Child, kind: str = "info") -> Html:
    """Make a box of a kind: info, good, warn or bad."""
    return div(f"g-notice g-{kind}", *children)


def failure(error: GraftError) -> Html:
    """Make a box with the three sentences of an error."""
    rest = (tag("p", part) for part in (error.why, error.next) if part)
    return notice(tag("strong", error.what), *rest, kind="bad")
