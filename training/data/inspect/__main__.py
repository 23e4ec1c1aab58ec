"""The child process that reports on a file of rows, with a memory limit because the file is untrusted.

    python -m training.data.inspect INSPECTION [OUT.jsonl]

`INSPECTION` is an `Inspection` as JSON. The report is printed up to three times, one line of JSON each: after reading
the file; with the report on held-out rows; and, where the base is on this disk, with lengths in its tokens. With
`OUT.jsonl`, the records that are left out are written to that file instead, and their number is printed. Errors are
printed as `store.processes` describes. The process opens no connection and imports no torch.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from errors import GraftError
from models.resolve import ModelStore
from process_setup import block_modules
from settings import Settings
from store import processes
from tasks import TASKS
from training.config import TrainConfig
from training.data.files.formats import Limits
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER, HeldOut, Report, check_asks
from training.data.rows import question_of
from training.data.table import RowDigests, Sample, Table, read_table

LONGEST = 2_000
"""Characters of a text that are written to the file of bad rows."""
DEEPEST, WIDEST = 4, 100
"""Levels of a nested cell that are written, and members of each."""
EXAMPLES, EXAMPLE_CHARACTERS = 5, 300
"""Shared questions that are shown, and characters of each."""


def main(arguments: Sequence[str], memory: int = 4 * 2**30) -> int:
    """Report on one file in at most `memory` bytes; returns the exit status of the process."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        inspection = Inspection.from_json(arguments[0])
        read = partial(
            read_table,
            answers=TASKS[inspection.spec.task].answers,
            columns=inspection.columns,
            mapping=inspection.mapping,
            limits=Limits(rows=Settings.from_env().rows),
        )
        if arguments[1:]:
            # Without a check: bad rows are needed most where the file is refused.
            print(write_bad_rows(read(inspection.path, check=lambda report, answers: None), Path(arguments[1])))
            return 0
        for report in _reports(inspection, read):
            print(report.to_json(), flush=True)
    except GraftError as error:
        return processes.fail(error)
    return 0


def _reports(inspection: Inspection, read: partial[Table]) -> Iterator[Report]:
    sample = Sample()
    table = read(inspection.path, sample=sample)
    report = table.report
    yield report
    if inspection.held_out:
        others = Sample()
        held_out = read(inspection.held_out, sample=others, check=check_asks)
        report = replace(report, held_out=_compare(table, held_out, others))
        yield report
    if inspection.spec.model:
        yield _with_tokens(report, sample, inspection)


def _compare(table: Table, held_out: Table, sample: Sample) -> HeldOut:
    """Return the report on a file of held-out rows and its overlap with the rows to train on.

    `sample` has rows of that file, for examples.
    """
    learned, report = table.report.labels, held_out.report
    unknown = {label: count for label, count in report.labels.items() if learned and label not in learned}
    shared, digests = int(held_out.contains(table.texts, table.normalized).sum()), RowDigests(0, by_label=False)
    for row in sample.rows:
        digests.add(0, row)
    is_shared = table.contains(digests.rows["text"], digests.rows["normalized"])
    examples = [question_of(row)[:EXAMPLE_CHARACTERS] for row, same in zip(sample.rows, is_shared, strict=True) if same]
    known = report.usable - sum(unknown.values())
    return HeldOut(report.file, report.rows, report.usable, known, unknown, shared, tuple(examples[:EXAMPLES]))


def _with_tokens(report: Report, sample: Sample, inspection: Inspection) -> Report:
    """Return the report with lengths in tokens of the base, or with the reason why they are not known."""
    spec = inspection.spec
    try:
        model = ModelStore(Settings.from_env().home / "models", offline=True).resolve(spec.model)
    except GraftError:
        return replace(report, untokenized=LATER)
    config = TrainConfig.for_tab(spec, inspection.path, "report", max_length=inspection.max_length)
    block_modules("torch")  # transformers works without it
    from training.data.inspect.preview import Preview  # noqa: PLC0415 - transformers takes longer than most files

    try:
        preview = Preview(model, config, sorted(report.labels))
        return replace(report, tokens=preview.lengths(sample.rows), rendered=preview.render(report.sample))
    except GraftError as error:
        return replace(report, untokenized=str(error))


def write_bad_rows(table: Table, out: Path) -> int:
    """Write `{"number", "reason", "row"}` as JSONL for each record that is left out; returns their number.

    `row` is null for a record without cells.
    """
    with out.open("w", encoding="utf-8") as file:
        for bad, record in table.bad_rows():
            row = None if isinstance(record, str) else _abridged(record)
            # Escaped: a text may have half of a surrogate pair, which no file can hold.
            file.write(json.dumps({"number": bad.number, "reason": bad.reason, "row": row}) + "\n")
    return table.report.left_out


def _abridged(value: Any, depth: int = 0) -> Any:  # noqa: ANN401 - any JSON, or what Parquet has besides
    """Return a value as JSON with long texts, long lists and deep nesting cut."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, dict | list) and depth == DEEPEST:
        return "…"
    if isinstance(value, dict):
        return {_abridged(str(key)): _abridged(part, depth + 1) for key, part in list(value.items())[:WIDEST]}
    if isinstance(value, list):
        return [_abridged(part, depth + 1) for part in value[:WIDEST]]
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text):,} characters)"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
