"""What several pages show: models that load, and texts, figures and times as people read them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from serving.pool import Status
from tasks import LOWER_IS_BETTER
from ui.html.tags import Html, bar, div, join, notice, span, tag
from ui.i18n import Words

CELL = 160
"""Characters of a text that a table shows."""


def short(text: object, length: int = CELL) -> str:
    """A text cut to what a table has room for."""
    whole = " ".join(str(text).split())
    return whole if len(whole) <= length else whole[: length - 1] + "…"


def models(say: Words, statuses: Sequence[Status]) -> Html:
    """One slim line for each base that is not ready; nothing when all are."""
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
    """A figure as people read it."""
    return f"{value:,.2f}" if metric in LOWER_IS_BETTER else f"{100 * value:.1f} %"


def duration(say: Words, seconds: float) -> str:
    """Seconds in words."""
    if seconds < 60:
        return say("time.seconds", n=max(1, round(seconds)))
    if seconds < 3600:
        return say("time.minutes", n=round(seconds / 60))
    return say("time.hours", n=f"{seconds / 3600:.1f}")


def day(created: Any) -> str:  # noqa: ANN401 - Unix seconds or an ISO date
    """A manifest's time to the minute."""
    if isinstance(created, int | float):
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(created))
    try:
        return datetime.fromisoformat(str(created)).strftime("%Y-%m-%d %H:%M")
    except ValueError:
        return ""
