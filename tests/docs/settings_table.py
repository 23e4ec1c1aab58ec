"""Writes the table of docs/settings.md from the descriptions of `Settings`: `python -m tests.docs.settings_table`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import settings
from settings import REPOSITORY, Settings

PAGE = REPOSITORY / "docs" / "settings.md"
HEAD = ["| variable | default | meaning |", "|---|---|---|"]
UNITS = {"MB": 10**6, "GB": 10**9, "HOURS": 3600}
"""Ends of a variable's name, and the number of bytes or seconds in one of its units."""


def described() -> Iterator[tuple[str, str, str]]:
    """(field, variable, meaning) of each variable of the environment, in the order of the fields.

    The field is empty for the second and further variables of one description.
    """
    (cls,) = [node for node in ast.parse(inspect.getsource(settings)).body if getattr(node, "name", "") == "Settings"]
    assert isinstance(cls, ast.ClassDef)
    for node, text in zip(cls.body, cls.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found = re.findall(r"`([A-Z][A-Z_]+(?:<TAB>)?)`: (.+?)(?=\n\n|\Z)", str(text.value.value), re.DOTALL)
            for place, (variable, meaning) in enumerate(found):
                yield "" if place else ast.unparse(node.target), variable, " ".join(meaning.split()).removesuffix(".")


def default(field: str, variable: str) -> str:
    """The default of a field as somebody would write it into its variable; empty where there is none."""
    value: Any = getattr(Settings(), field) if field else None
    if isinstance(value, bool):
        return "0" if variable == "HF_HUB_OFFLINE" else ""
    if isinstance(value, Path):
        return str(value.relative_to(REPOSITORY)) if value.is_absolute() else str(value)
    if isinstance(value, int):
        return str(value // UNITS.get(variable.rpartition("_")[2], 1))
    return str(value) if value else ""


def table() -> str:
    """The table in Markdown."""
    rows = [(f"`{variable}`", default(field, variable), text) for field, variable, text in described()]
    lines = [f"| {name} | {f'`{value}` ' if value else ''}| {text} |" for name, value, text in rows]
    return "\n".join([*HEAD, *lines]) + "\n"


def replaced(page: str) -> str:
    """The text of the page with the table as it should be."""
    return re.sub(r"^\| variable .*?\n(?!\|)", lambda _: table(), page, count=1, flags=re.MULTILINE | re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
