"""Errors that a user may read: what went wrong, why, and what to do next.

Every error that reaches the page, the terminal or an API caller is a `GraftError`; anything else is a defect, is
logged with its traceback, and reaches the user only as a short sentence. Messages never carry tracebacks or secrets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self


class Text(str):
    """An English sentence made of a template and its values, so that it can be translated later.

        >>> Text("{n} requests wait.", n=3)
        '3 requests wait.'

    It is a plain `str` to everybody else; `template` is the key under which translations are found.
    """

    template: str
    values: Mapping[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> Self:  # noqa: ANN401 - anything that can be formatted
        """Format `template` with `values`, as `str.format` does."""
        text = super().__new__(cls, template.format(**values))
        text.template, text.values = template, values
        return text


class GraftError(Exception):
    """A failure that a user can understand: `what` went wrong, `why`, and what to do `next`; three short sentences."""

    def __init__(self, what: str, why: str = "", next: str = "") -> None:
        super().__init__(what, why, next)
        self.what, self.why, self.next = what, why, next

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.why, self.next) if part)

    def to_dict(self) -> dict[str, Any]:
        """Return the sentences as JSON values, which is how a child process hands an error to its parent."""
        return {"what": self.what, "why": self.why, "next": self.next}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Self:
        """Make the error that `to_dict` described."""
        return cls(**facts)


class ConfigError(GraftError):
    """A setting, training configuration or plugin fact that is not valid; `problems` holds all of them at once."""

    def __init__(self, subject: str, problems: Sequence[str], next: str = "") -> None:
        super().__init__(f"{subject} is not valid.", " ".join(problems), next)
        self.problems = tuple(problems)


class DataError(GraftError):
    """Rows that cannot be read or learned from."""


class ModelError(GraftError):
    """A base model that cannot be found, trusted or loaded."""


class AdapterError(GraftError):
    """A version that is missing, damaged, or made for another base."""


class RunError(GraftError):
    """A training run that cannot start, or that failed."""


class PluginError(GraftError):
    """A plugin file that cannot be imported or whose facts are incomplete."""


class InputError(GraftError):
    """An input to a tab that cannot be answered."""


class BusyError(GraftError):
    """Too many callers at once, or a model that is still loading: try again."""
