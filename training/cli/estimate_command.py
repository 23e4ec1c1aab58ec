"""What a run would need, and which bases there are, from a terminal; nothing is trained.

python -m training estimate --plugin classification --data examples/tickets.csv --max-length 2048
python -m training bases --plugin classification --language zh
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from errors import GraftError, ModelError
from settings import Settings
from training.cli import run_arguments
from training.cli.fetch import fetch_rows
from training.cli.tabs import find_tab
from training.config import PRESET, PRESETS
from training.estimate import advice, fit, machine
from training.estimate.estimate import Estimate, seconds_a_step
from training.estimate.fit import gigabytes
from training.runs.runs import Runs

COMMANDS = ("estimate", "bases")
LENGTHS_BY = {
    "rows": "rows as they were tokenized", "sample": "a sample that was tokenized", "words": "the words of the rows",
    "limit": "the longest length",
}  # fmt: skip


def main(arguments: Sequence[str]) -> int:
    """`estimate` or `bases`; the exit code: 0 it fits, 1 it does not, 2 refused."""
    verb, rest = arguments[0], arguments[1:]
    try:
        return _estimate(rest) if verb == "estimate" else _bases(rest)
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2


def _estimate(arguments: Sequence[str]) -> int:
    parser = run_arguments.parser(named=False)
    parser.prog = f"{run_arguments.COMMAND} estimate"
    parser.description = "What a run with these settings would need; nothing is trained."
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    options, settings = parser.parse_args(arguments), Settings.from_env()
    fetch_rows(settings, options)
    config = run_arguments.to_config(options, find_tab(options.plugin, options.base))
    plan = Runs(settings).plan(config)
    if plan is None:
        what = f"What a run on {config.model} needs is not known."
        raise ModelError(what, "It is not on this computer, or of a family whose sizes Graft cannot read.",
                         "Fetch it by starting a run, or name another base with --model.")  # fmt: skip
    found = plan.estimate()
    if options.json:
        step, runs = seconds_a_step(settings.home, found)
        known = {"seconds_a_step": step or None, "runs": runs, "advice": [] if found.fits else fit.advised(plan)}
        print(json.dumps({**found.to_dict(), **known}, indent=1))
    else:
        print_estimate(found, settings.home)
        if not found.fits:
            print(fit.refusal(plan, found))
    return 0 if found.fits else 1


def print_estimate(found: Estimate, home: Path) -> None:
    """Print the needs of a run, part by part."""
    print(sentence(found, home))
    for name, parts in (("memory", found.memory), ("disk", found.disk)):
        print(f"  {name:8}", ", ".join(f"{part} {gigabytes(size)}" for part, size in parts.items() if size >= 1e6))
    print(f"  {found.steps:,} steps, {found.tokens:,} tokens, at most {found.longest:,} in a row; lengths from"
          f" {LENGTHS_BY[found.lengths_by]}.")  # fmt: skip
    print(f"  Gradient checkpointing: {'on' if found.checkpointing else 'off'}.")


def sentence(found: Estimate, home: Path) -> str:
    """Return the estimate in one line, with the time where earlier runs in `home` tell it."""
    where = f" of {found.available.gpu_name}" if found.available.gpu else ""
    needs = f"needs {gigabytes(found.peak)} of {gigabytes(found.free)} free{where}, {gigabytes(found.stored)} of disk"
    step, runs = seconds_a_step(home, found)
    time = f", about {duration(step * found.steps)} as earlier runs on this base took ({runs})" if runs else ""
    return f"{needs}, {found.steps:,} steps{time}"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _bases(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(f"{run_arguments.COMMAND} bases", description="Bases for a tab, and why.")
    parser.add_argument("--plugin", required=True, help="the tab, for example classification")
    parser.add_argument("--language", default="", choices=("", "en", "zh"), help="of the rows")
    parser.add_argument("--preset", choices=PRESETS["label"], default=PRESET, help="what training is estimated for")
    options, settings = parser.parse_args(arguments), Settings.from_env()
    spec = find_tab(options.plugin)
    lines = [("base", "parameters", "languages", "licence", "context", "answering", "training", "why")]
    for one in advice.advise(spec, settings, machine.measure(settings.home), options.language, options.preset):
        shape = one.base.shape
        mark = " (here)" if one.here else ""
        lines.append((one.base.id + mark, f"{shape.parameters / 1e6:,.0f} M", one.base.languages, one.base.licence,
                      f"{shape.window:,}", gigabytes(one.serving), gigabytes(one.estimate.peak),
                      one.base.why))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())
    print("Any other works too: --model ID, or a folder.")
    return 0
