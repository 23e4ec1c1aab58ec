"""Where a request stands among those that wait. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Place:
    """Filled in when a request has joined a line."""

    ask: Callable[[], int] = lambda: 0
    """How many are before it."""
