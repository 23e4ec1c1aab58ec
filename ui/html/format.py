"""Formats that several pages share: short texts, metrics, durations, dates, differences, and models that load."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from difflib import SequenceMatcher
from typing import Any

from serving.pool import Status
from tasks import LOWER_IS_BETTER
from ui.html.tags import Html, bar, div, join, notice, span, tag
from ui.i18n import Words

CELL = 160
"""Most characters of a text in a table."""
PIECES = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\w+|\s+|.", re.DOTALL)
"""Words, spaces and signs; Chinese and Japanese by character."""
MOST_PIECES = 4_000
"""Most pieces of a text that is compared: the time grows with the square."""


def short(text: object, length: int = CELL) -> str:
    """Cut a text to `length` characters, on one line."""
    whole = " ".join(str(text).split())
    return whole if len(whole) <= length else whole[: length - 1] + "…"


def models(say: Words, statuses: Sequence[Status]) -> Html:
    """Make a line for each base that is not ready."""
    lines = []
    for status in statuses:
        name = status.id.rsplit("/", 1)[-1].partition("@")[0]
        if status.phase == "failed":
            lines.append(notice(tag("strong", say("models.failed", model=name)), " ", status.error, kind="bad"))
        elif status.phase != "ready":
            percent = f" {100 * status.fraction:.0f} %" if status.fraction is not None else ""
            words = say(f"models.{status.phase}", model=name) + percent
            lines.append(div("g-loading", span("", words), bar(status.fraction)))
    return join(lines)


def figure(metric: str, value: float) -> str:
    """Write the value of a metric: a share in percent, a loss with two decimals."""
    return f"{value:,.2f}" if metric in LOWER_IS_BETTER else f"{100 * value:.1f} %"


def duration(say: Words, seconds: float) -> str:
    """Write seconds in the reader's words: 40 s, 3 min, 1.5 h."""
    if seconds < 60:
        return say("time.seconds", n=max(1, round(seconds)))
    if seconds < 3600:
        return say("time.minutes", n=round(seconds / 60))
    return say("time.hours", n=f"{seconds / 3600:.1f}")


def day(created: Any) -> str:  # noqa: ANN401 - Unix seconds or an ISO date
    """Write a manifest's time to the minute; empty where it is none."""
    if isinstance(created, int | float):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
    try:
        return datetime.fromisoformat(str(created)).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""


def changes(was: str, now: str) -> Iterator[tuple[bool, str, str]]:
    """Yield (whether equal, old text, new text) for each part of the way from one text to the other."""
    old, new = PIECES.findall(was), PIECES.findall(now)
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        yield kind == "equal", "".join(old[a:b]), "".join(new[c:d])


def marked(was: str, now: str) -> list[tuple[str, str]]:
    """Return the way from one answer to the other as (kept, gone or come, text) pieces; empty for equal texts."""
    if was == now:
        return []
    if max(len(PIECES.findall(text)) for text in (was, now)) > MOST_PIECES:
        return [("come", now)]
    found = list[tuple[str, str]]()
    for same, old, new in changes(was, now):
        found += [("kept", old)] if same else [(kind, text) for kind, text in (("gone", old), ("come", new)) if text]
    return found
