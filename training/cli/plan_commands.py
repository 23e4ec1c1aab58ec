"""The commands to plan a run: `inspect` its rows, `estimate` its needs, list `bases` and `plugins`; nothing is trained.

python -m training inspect --plugin classification --data mine.csv --bad-rows left-out.jsonl
python -m training estimate --plugin classification --data examples/tickets.csv --max-length 2048
python -m training bases --plugin classification --language zh
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from errors import ModelError
from settings import Settings
from training.cli import run_arguments
from training.cli.run_arguments import find_tab, read_tabs
from training.cli.terminal import print_table
from training.data.inspect.report import LATER, HeldOut, Rendered, Report, TokenLengths
from training.estimate import advice, machine
from training.estimate.advice import gigabytes
from training.estimate.estimate import Estimate, estimate_run, seconds_a_step
from training.runs.runs import Runs, inspection_of

HEAD = ("base", "parameters", "languages", "licence", "context", "answering", "training", "why")
LENGTHS_BY = {
    "rows": "rows as they were tokenized",
    "sample": "a sample that was tokenized",
    "words": "the words of the rows",
    "limit": "the longest length",
}
WIDTH = 40
"""Characters of the longest bar."""
LEARNED = "\033[7m{}\033[0m", "[[{}]]"
"""Marks around learned text, on a terminal and in a file."""


def add_inspect_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `inspect`."""
    run_arguments.add_arguments(parser, named=False)
    parser.add_argument("--bad-rows", type=Path, metavar="OUT", help="write every row that is left out here, as JSONL")


def add_bases_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `bases`."""
    parser.add_argument("--plugin", required=True, help="the tab, for example classification")
    parser.add_argument("--language", default="", choices=("", "en", "zh"), help="of the rows")


def inspect(options: argparse.Namespace, settings: Settings) -> None:
    """Print the report on a file of rows. Raises `GraftError`."""
    config, runs = run_arguments.configure(options, settings), Runs(settings)
    held_out = Path(config.held_out_data) if config.held_out_data else None
    inspection = replace(inspection_of(config), held_out=held_out)
    if options.bad_rows:
        # First, because the report is refused where too few rows remain.
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
    if report.restated:
        yield f"{report.restated:,} rows repeat an earlier question but for case, punctuation or white space."


def _lengths(tokens: TokenLengths, usable: int) -> Iterator[str]:
    sample = f", counted on a sample of {tokens.rows:,} rows" if tokens.rows < usable else ""
    yield f"tokens of a row{sample}:"
    yield from _bars([(f"{a:,}-{b - 1:,}", n) for (a, b), n in zip(pairwise(tokens.edges), tokens.counts, strict=True)])
    spread = f"median {tokens.median:,}, 95 of 100 at most {tokens.p95:,}, longest {tokens.longest:,}"
    yield f"  {spread}; {tokens.learned_mean:,.1f} learned of a row"
    if tokens.truncated:
        cut = "their texts are cut, and a row whose answer would be cut is left out."
        yield f"  {tokens.truncated:,} are longer than {tokens.limit:,}: {cut}"
    else:
        yield f"  every row fits into {tokens.limit:,}."


def _row(row: Rendered, learned: str) -> str:
    if not row.pieces:
        return "(left out: its answer does not fit into the longest length)"
    text = "".join(learned.format(piece) if is_learned else piece for piece, is_learned in row.pieces)
    return text + (f" -> {learned.format(row.answer)}" if row.answer else "") + (" (cut)" if row.cut else "")


def _held_out(held_out: HeldOut) -> Iterator[str]:
    yield f"{held_out.file}: {held_out.known:,} of {held_out.rows:,} held-out rows can be compared on."
    if held_out.unknown:
        names = ", ".join(f"{name!r} ({count:,})" for name, count in list(held_out.unknown.items())[:10])
        yield f"  {sum(held_out.unknown.values()):,} have labels that the rows to train on lack: {names}."
    if held_out.shared:
        yield f"  {held_out.shared:,} rows to train on are held out too, and are left out of training:"
        yield from (f"    {' '.join(text.split())[:120]}" for text in held_out.examples)


def _bars(counts: Sequence[tuple[str, int]]) -> Iterator[str]:
    most = max((count for _, count in counts), default=0) or 1
    width = max((len(name) for name, _ in counts), default=0)
    for name, count in counts:
        yield f"  {name.rjust(width)} {'#' * round(WIDTH * count / most)} {count:,}"


def estimate(options: argparse.Namespace, settings: Settings) -> int:
    """Print the needs of a run; returns the exit status, 1 where it does not fit. Raises `GraftError`."""
    config = run_arguments.configure(options, settings)
    plan = Runs(settings).plan(config)
    if plan is None:
        raise ModelError(
            f"What a run on {config.model} needs is not known.",
            "It is not on this computer, or of a family whose sizes Graft cannot read.",
            "Fetch it by starting a run, or name another base with --model.",
        )
    found = estimate_run(plan)
    print_estimate(found, settings.home)
    if not found.fits:
        print(advice.refusal(plan, found))
    return 0 if found.fits else 1


def bases(options: argparse.Namespace, settings: Settings) -> None:
    """Print a line for each base that suits a tab. Raises `GraftError`."""
    free = machine.measure(settings.home)
    lines = [HEAD]
    for one in advice.advise(find_tab(options.plugin), settings, free, options.language):
        base, here = one.base, " (here)" if one.here else ""
        size, window = f"{base.shape.parameters / 1e6:,.0f} M", f"{base.shape.window:,}"
        needs = (gigabytes(one.serving), gigabytes(one.estimate.peak))
        lines.append((f"{base.id}{here}", size, base.languages, base.licence, window, *needs, base.why))
    print_table(lines)
    print("Any other works too: --model ID, or a folder.")


def print_estimate(found: Estimate, home: Path) -> None:
    """Print the needs of a run, part by part."""
    print(sentence(found, home))
    for name, parts in (("memory", found.memory), ("disk", found.disk)):
        print(f"  {name:8}", ", ".join(f"{part} {gigabytes(size)}" for part, size in parts.items() if size >= 1e6))
    size = f"{found.steps:,} steps, {found.tokens:,} tokens, at most {found.longest:,} in a row"
    print(f"  {size}; lengths from {LENGTHS_BY[found.lengths_by]}.")
    print(f"  Gradient checkpointing: {'on' if found.checkpointing else 'off'}.")


def sentence(found: Estimate, home: Path) -> str:
    """Return the estimate in one line, with the time where it is known from earlier runs in `home`."""
    where = f" of {found.available.gpu_name}" if found.available.gpu else ""
    needs = f"needs {gigabytes(found.peak)} of {gigabytes(found.free)} free{where}, {gigabytes(found.stored)} of disk"
    step, runs = seconds_a_step(home, found)
    time = f", about {duration(step * found.steps)} as earlier runs on this base took ({runs})" if runs else ""
    return f"{needs}, {found.steps:,} steps{time}"


def duration(seconds: float) -> str:
    """Format seconds as seconds, minutes or hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_tabs(options: argparse.Namespace, settings: Settings) -> None:
    """Print a line for each tab. Raises `GraftError`."""
    lines = [("tab", "title", "task", "base")]
    for name, tab in read_tabs().items():
        lines.append((name, tab["title"], tab.get("task", "-"), tab.get("model") or tab.get("error", "")))
    print_table(lines)
