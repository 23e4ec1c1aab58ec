"""The command `inspect`: the report on a file of rows that the Train page shows, as text.

python -m training inspect --plugin classification --data examples/tickets.csv
python -m training inspect --plugin classification --data mine.csv --bad-rows left-out.jsonl
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from settings import Settings
from training.cli import run_arguments
from training.cli.tabs import find_tab
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER, HeldOut, Near, Rendered, Report, Tokens
from training.data.rows import parse_columns
from training.runs.runs import Runs

WIDTH = 40
"""Characters of the longest bar."""
LEARNED = "\033[7m{}\033[0m", "[[{}]]"
"""Marks of the text that is learned, on a terminal and in a file."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `inspect`."""
    run_arguments.add_arguments(parser, named=False)
    parser.add_argument("--bad-rows", type=Path, metavar="OUT", help="write every row that is left out here, as JSONL")


def inspect(options: argparse.Namespace, settings: Settings) -> None:
    """Print the report on a file of rows. Raises `GraftError`."""
    spec, runs = find_tab(options.plugin, options.base), Runs(settings)
    run_arguments.fetch_rows(settings, options)
    config = run_arguments.to_config(options, spec)
    held_out = Path(config.held_out_data) if config.held_out_data else None
    inspection = Inspection(options.data, spec, parse_columns(options.columns), config.max_length, held_out)
    if options.bad_rows:
        # First, because rows that cannot be learned from are what somebody wants to see then.
        left_out = runs.write_bad_rows(inspection, options.bad_rows)
        print(f"{left_out:,} rows that are left out are in {options.bad_rows}.")
    *_, report = runs.look(inspection)
    for line in describe(report, LEARNED[0] if sys.stdout.isatty() else LEARNED[1]):
        print(line)


def describe(report: Report, learned: str = LEARNED[1]) -> Iterator[str]:
    """Yield the report in lines of text; `learned` formats the text that is learned."""
    yield f"{report.file}: {report.rows:,} rows, {report.usable:,} usable, {report.left_out:,} left out."
    yield f"  read from: {', '.join(f'{part} {name!r}' for part, name in report.mapping.items())}"
    yield from (f"  {count:,} x {reason}" for reason, count in list(report.reasons.items())[:10])
    yield from (f"  {warning}" for warning in report.warnings)
    if report.labels:
        yield "labels:"
        yield from _bars([(name[:24], count) for name, count in list(report.labels.items())[:20]])
    if report.tokens:
        yield from _lengths(report.tokens, report.usable)
    elif report.untokenized:
        later = "Lengths in tokens follow when the base is on this computer."
        yield later if report.untokenized == LATER else report.untokenized
    if report.rendered:
        yield f"rows as the model reads them, {learned.format('what it learns')}:"
        yield from (f"  {number}. {_row(row, learned)}" for number, row in enumerate(report.rendered, 1))
    if report.held_out:
        yield from _held_out(report.held_out)
    if report.near:
        yield from _near(report.near)


def _lengths(tokens: Tokens, usable: int) -> Iterator[str]:
    of = f", counted on a sample of {tokens.rows:,} rows" if tokens.rows < usable else ""
    yield f"tokens of a row{of}:"
    yield from _bars([(f"{a:,}-{b - 1:,}", n) for (a, b), n in zip(pairwise(tokens.edges), tokens.counts, strict=True)])
    yield (f"  median {tokens.median:,}, 95 of 100 at most {tokens.p95:,}, longest {tokens.longest:,};"
           f" {tokens.learned_mean:,.1f} learned of a row")  # fmt: skip
    if tokens.truncated:
        yield (f"  {tokens.truncated:,} are longer than {tokens.limit:,}: their texts are cut, and a row whose answer"
               " would be cut is left out.")  # fmt: skip
    else:
        yield f"  every row fits into {tokens.limit:,}."


def _row(row: Rendered, learned: str) -> str:
    if not row.pieces:
        return "(left out: its answer does not fit into the longest length)"
    text = "".join(learned.format(piece) if taught else piece for piece, taught in row.pieces)
    return text + (f" -> {learned.format(row.answer)}" if row.answer else "") + (" (cut)" if row.cut else "")


def _held_out(other: HeldOut) -> Iterator[str]:
    yield f"{other.file}: {other.known:,} of {other.rows:,} held-out rows can be compared on."
    if other.unknown:
        names = ", ".join(f"{name!r} ({count:,})" for name, count in list(other.unknown.items())[:10])
        yield f"  {sum(other.unknown.values()):,} have labels that the rows to train on lack: {names}."
    if other.shared:
        yield f"  {other.shared:,} rows to train on are held out too, and are left out of training:"
        yield from (f"    {' '.join(text.split())[:120]}" for text in other.examples)


def _near(near: Near) -> Iterator[str]:
    if near.same or near.alike:
        yield (f"repeated but for case or punctuation: {near.same:,};"
               f" nearly the same: {near.alike:,} of {near.rows:,}")  # fmt: skip
    for pair in near.pairs[:5]:
        yield f"  rows {pair.numbers[0]:,} and {pair.numbers[1]:,}, {100 * pair.share:.0f} % in common"
        yield from (f"    {' '.join(text.split())[:120]}" for text in pair.texts)


def _bars(lines: Sequence[tuple[str, int]]) -> Iterator[str]:
    most = max((count for _, count in lines), default=0) or 1
    wide = max((len(name) for name, _ in lines), default=0)
    for name, count in lines:
        yield f"  {name.rjust(wide)} {'#' * round(WIDTH * count / most)} {count:,}"
