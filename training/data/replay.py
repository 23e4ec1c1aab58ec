"""Rows that are always learned from, however few they are, and the sample of other rows that is gone through beside
them, so that what was known is not forgotten (rehearsal: Robins, 1995).

A file of corrections is JSONL: rows under their parts' names or under the tab's own columns, each with its id or
without one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from errors import DataError
from training.config import TrainConfig
from training.data.digests import Digests, text_digest
from training.data.files.formats import Limits
from training.data.rows import Answers, Row, RowProblem, asked, to_row

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Lessons:
    """The rows of a file of corrections."""

    rows: list[Row] = field(default_factory=list)
    ids: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The rows that have an id, as the file has them."""

    @property
    def labels(self) -> set[str]:
        """Their labels, where they have some."""
        return {row["target"] for row in self.rows if "target" in row}

    def digests(self, seed: int) -> Digests:
        """Of seed and text, as those of a table of rows."""
        return np.array([text_digest(seed, asked(row)) for row in self.rows], np.uint64)

    def without_asked(self, others: Iterable[Row]) -> list[Row]:
        """Those of the others that ask nothing that is asked here."""
        known = {asked(row).strip() for row in self.rows}
        return [row for row in others if asked(row).strip() not in known]


def read_lessons(config: TrainConfig, answers: Answers) -> Lessons:
    """The corrections of a configuration, none where it names none; raises `DataError` for the first bad row."""
    if not config.corrections:
        return Lessons()
    path, rows, ids = Path(config.corrections), list[Row](), dict[str, Mapping[str, Any]]()
    for number, record in enumerate(_records(path), 1):
        try:
            rows.append(_row(record, config, answers))
        except RowProblem as problem:
            raise DataError(f"Row {number} of {path.name} cannot be learned from.", f"{problem}.") from problem
        if "id" in record:
            ids[str(record["id"])] = {part: value for part, value in record.items() if part != "id"}
    if not rows:
        raise DataError(f"{path.name} has no rows.", "", "Correct an answer first.")
    return Lessons(rows, ids)


def digest(config: TrainConfig) -> str:
    """What decides the rows: the hash of the file."""
    try:
        return hashlib.sha256(Path(config.corrections).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{Path(config.corrections).name} is not there.", "", "Check the path of the file.") from error


def replayed(texts: Digests, strata: NDArray[np.uint16], free: Mask, most: int) -> Mask:
    """Which of the `free` rows to go through: all, or about `most`, each label by its share and with one at least.

    The digests of seed and text decide, so that the same rows are chosen each time.
    """
    if not most or int(free.sum()) <= most:
        return free
    chosen, share = np.zeros(len(free), bool), most / int(free.sum())
    for stratum in np.unique(strata[free]):
        places = np.flatnonzero(free & (strata == stratum))
        order = np.argsort(texts[places], kind="stable")
        chosen[places[order[: max(1, round(share * len(places)))]]] = True
    return chosen


def _row(record: Mapping[str, Any], config: TrainConfig, answers: Answers) -> Row:
    parts: Sequence[str] = ("messages",) if {"messages", config.columns.get("messages")} & {*record} else (
        "text", "target")  # fmt: skip
    mapping = {part: part if part in record else config.columns.get(part) or part for part in parts}
    return to_row(record, mapping, answers, bool(config.columns.get("messages")), Limits().cell)


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read.", "It is not JSONL in UTF-8.") from error
    if not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path.name} cannot be read.", "A line of it is no JSON object.")
    return records
