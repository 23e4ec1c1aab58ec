"""Every row that is left out, in a file: its number, why, and what is in it as far as that can be shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.data import Table

LONGEST = 2_000
"""Characters of a text that are written."""
DEEPEST, WIDEST = 4, 100
"""Levels and members of a nested cell that are written."""


def write_bad_rows(table: Table, out: Path) -> int:
    """Write a line of JSON for each: `{"number", "reason", "row"}`; `row` is null where it has no cells. How many."""
    count = 0
    with out.open("w", encoding="utf-8") as file:
        for bad, cells in table.bad_rows():
            count += 1
            # Escaped: a text may have half of a surrogate pair, which no file can hold.
            file.write(json.dumps({"number": bad.number, "reason": bad.reason, "row": _shown(cells)}) + "\n")
    return count


def _shown(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON, or what Parquet has besides
    """The value as JSON that is not larger than somebody would read."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, dict | list) and depth == DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {_shown(str(key)): _shown(part, depth + 1) for key, part in list(value.items())[:WIDEST]}
    if isinstance(value, list):
        return [_shown(part, depth + 1) for part in value[:WIDEST]]
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"
