"""The child process that reports on a file of rows, with little memory, because the file comes from anybody.

    python -m training.data.inspect FILE --answers label --columns text=body,target=kind

prints the report as a line of JSON each time that more of it is known: first what reading the file tells; then rows
that are nearly the same, and those of `--held-out` that are in both files; then, with `--model` and where that base is
on this disk, what its tokenizer makes of the rows. Exits with 0, or prints `{"what", "why", "next"}` and exits with 2.
`--bad-rows OUT.jsonl` writes every row that is left out into a file instead. It asks no network and imports no torch.
"""

from __future__ import annotations

import argparse
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
from settings import Settings
from tasks import Columns
from training.config import TrainConfig
from training.data.files.formats import Limits
from training.data.inspect.near import find_near
from training.data.inspect.report import LATER, HeldOut, Report, check_asks, check_learnable
from training.data.rows import UnknownColumns, asked, parse_columns
from training.data.table import Sample, Table, read_table

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


EXAMPLES = 5
"""Shared rows that are shown."""
SHOWN = 300
"""Characters of each."""


def main(arguments: Sequence[str], memory: int = 4 * 2**30) -> int:
    """Print the report of one file, or why there is none, in at most `memory` bytes; the exit code of the process."""
    options = _parser().parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        for line in _bad_rows(options) if options.bad_rows else _reports(options):
            print(line, flush=True)
    except GraftError as error:
        told = {"what": error.what, "why": error.why, "next": error.next}
        print(json.dumps(told | ({"columns": error.columns} if isinstance(error, UnknownColumns) else {})))
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m training.data.inspect", description="Report on a file of rows.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--answers", choices=("label", "text"), required=True)
    parser.add_argument("--columns", default="", help="your choice, taken as it is: text=COLUMN,target=COLUMN")
    parser.add_argument("--wanted", default="text=text,target=target", help="the tab's own names, guessed at if absent")
    parser.add_argument("--held-out", type=Path, help="rows of your own to compare on, in another file")
    parser.add_argument("--model", default="", help="the base whose tokens are counted, if it is on this disk")
    parser.add_argument("--task", default="", help="the task of the tab")
    parser.add_argument("--prompt", default="", help="how a text is put to the base")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of one row")
    parser.add_argument("--bad-rows", type=Path, metavar="OUT", help="write every row that is left out here, as JSONL")
    return parser


def _bad_rows(options: argparse.Namespace) -> Iterator[str]:
    """How many rows were written."""
    wanted, given = Columns(**parse_columns(options.wanted)), parse_columns(options.columns)
    # Also of a file that nothing can be learned from, whose bad rows are what somebody wants to see.
    limits = Limits(rows=Settings.from_env().rows)
    table = read_table(options.file, options.answers, wanted, given, limits, check=lambda report, answers: None)
    yield json.dumps({"written": write_bad_rows(table, options.bad_rows)})


def _reports(options: argparse.Namespace) -> Iterator[str]:
    """The report, each time that more of it is known."""
    read = partial(read_table, answers=options.answers, columns=Columns(**parse_columns(options.wanted)),
                   mapping=parse_columns(options.columns), limits=Limits(rows=Settings.from_env().rows))  # fmt: skip
    sample = Sample()
    table = read(options.file, sample=sample, check=check_learnable)
    report = table.report
    yield report.to_json()
    report = replace(report, near=find_near(sample.first(), table.restated()))
    if options.held_out:
        other = read(options.held_out, check=check_asks)
        report = replace(report, held_out=_compared(table, other))
    yield report.to_json()
    if options.model:
        yield _with_tokens(report, sample, options).to_json()


def _compared(table: Table, other: Table) -> HeldOut:
    """What is in the file to compare on, and what of it is in the one to train on too."""
    mine, theirs = table.report, other.report
    unknown = {label: count for label, count in theirs.labels.items() if mine.labels and label not in mine.labels}
    shared = table.asked_in(other)
    examples: list[str] = []
    for row, both in zip(table.rows(), shared, strict=True) if shared.any() else ():
        if len(examples) == EXAMPLES:
            break
        if both:
            examples.append(asked(row)[:SHOWN])
    known = theirs.usable - sum(unknown.values())
    return HeldOut(theirs.file, theirs.rows, theirs.usable, known, unknown, int(shared.sum()), tuple(examples))


def _with_tokens(report: Report, sample: Sample, options: argparse.Namespace) -> Report:
    """The report with what the base's tokenizer makes of the rows, or with why that is not known."""
    try:
        model = ModelStore(Settings.from_env().home / "models", offline=True).resolve(options.model)
    except GraftError:
        return replace(report, untokenized=LATER)
    config = TrainConfig(
        name="report", plugin="report", model=options.model, task=options.task, data=str(options.file),
        columns=parse_columns(options.wanted), prompt=options.prompt, max_length=options.max_length,
    )  # fmt: skip
    # As the language has it: a module that is None cannot be imported, so transformers goes without.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    from training.data.inspect.preview import CHARACTERS, ROWS, Preview  # noqa: PLC0415 - transformers takes longer than most files

    try:
        seen = Preview(model, config, sorted(report.labels))
        tokens = seen.tokens([one.row for one in sample.first(ROWS, CHARACTERS)])
        return replace(report, tokens=tokens, rendered=seen.rendered(report.sample))
    except GraftError as error:
        return replace(report, untokenized=str(error))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
