"""How long work is told to the page: a callback of a phase and a fraction."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float | None], None]
"""`(phase, fraction)`: the phase is "download" or "convert", the fraction 0 to 1, or None while it is not known.
It may be called from another thread; raising from it cancels the work."""


def silent(phase: str, fraction: float | None) -> None:
    """A `Progress` that tells nobody."""


class Meter:
    """Turns amounts done into fractions of `total` that never go back."""

    def __init__(self, progress: Progress, phase: str, total: int) -> None:
        self._progress, self._phase, self._total, self._last = progress, phase, total, 0.0

    def at(self, done: float) -> None:
        """Report that `done` of the total is done."""
        if self._total > 0:
            self._last = max(self._last, min(1.0, done / self._total))
        self._progress(self._phase, self._last if self._total > 0 else None)
