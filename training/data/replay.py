"""Corrections, and the replay of earlier rows beside them against forgetting (rehearsal: Robins, 1995).

Corrections are always trained on. Their file is JSONL: an object per row, keyed by `text` and `target` (or `messages`)
or by the tab's columns, with an `id` or without.
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
from training.data.files.formats import Limits
from training.data.rows import Answers, Row, RowProblem, question_of, to_row
from training.data.table import Digests, Mask, text_digest


@dataclass(frozen=True)
class CorrectionRows:
    """The rows of a file of corrections."""

    rows: list[Row] = field(default_factory=list)
    ids: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The records of rows that have an id, by id."""

    @property
    def labels(self) -> set[str]:
        """Their labels; empty where answers are texts."""
        return {row["target"] for row in self.rows if "target" in row}

    def digests(self, seed: int) -> Digests:
        """Return the `text_digest` of each row's question."""
        return np.array([text_digest(seed, question_of(row)) for row in self.rows], np.uint64)

    def exclude_corrected(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows without those whose question is also a correction's."""
        corrected = {question_of(row).strip() for row in self.rows}
        return [row for row in rows if question_of(row).strip() not in corrected]


def read_corrections(config: TrainConfig, answers: Answers) -> CorrectionRows:
    """Read the corrections that a configuration names, if any; raises `DataError` for the first bad row."""
    if not config.corrections:
        return CorrectionRows()
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
    return CorrectionRows(rows, ids)


def hash_corrections(config: TrainConfig) -> str:
    """Return the SHA-256 of the file of corrections; raises `DataError` where it is missing."""
    try:
        return hashlib.sha256(Path(config.corrections).read_bytes()).hexdigest()
    except OSError as error:
        raise DataError(f"{Path(config.corrections).name} is not there.", "", "Check the path of the file.") from error


def choose_replayed(texts: Digests, labels: NDArray[np.uint16], candidates: Mask, most: int) -> Mask:
    """Return the mask of the `candidates` to replay: all, or about `most`, at least one of each label by its share.

    The smallest digests are chosen, so that it is the same rows each time. `most` 0 means all.
    """
    total = int(candidates.sum())
    if not most or total <= most:
        return candidates
    chosen = np.zeros(len(candidates), bool)
    for label in np.unique(labels[candidates]):
        rows = np.flatnonzero(candidates & (labels == label))
        order = np.argsort(texts[rows], kind="stable")
        chosen[rows[order[: max(1, round(most / total * len(rows)))]]] = True
    return chosen


def _row(record: Mapping[str, Any], config: TrainConfig, answers: Answers) -> Row:
    chat = {"messages", config.columns.get("messages")} & {*record}
    parts: Sequence[str] = ("messages",) if chat else ("text", "target")
    mapping = {part: part if part in record else config.columns.get(part) or part for part in parts}
    return to_row(record, mapping, answers, bool(config.columns.get("messages")), Limits().cell)


def _records(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # not at U+2028, which JSON may hold
        records = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path.name} cannot be read.", "It is not JSONL in UTF-8.") from error
    if not all(isinstance(record, dict) for record in records):
        raise DataError(f"{path.name} cannot be read.", "A line of it is no JSON object.")
    return records
