"""The commands `estimate`, what a run would need, and `bases`, which bases suit a tab; nothing is trained.

python -m training estimate --plugin classification --data examples/tickets.csv --max-length 2048
python -m training bases --plugin classification --language zh
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from errors import ModelError
from settings import Settings
from training.cli import run_arguments
from training.cli.tabs import find_tab
from training.cli.terminal import print_table
from training.config import PRESET, PRESETS
from training.estimate import advice, machine
from training.estimate.advice import gigabytes
from training.estimate.estimate import Estimate, estimate_run, seconds_a_step
from training.runs.runs import Runs

LENGTHS_BY = {
    "rows": "rows as they were tokenized",
    "sample": "a sample that was tokenized",
    "words": "the words of the rows",
    "limit": "the longest length",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `estimate`."""
    run_arguments.add_arguments(parser, named=False)
    parser.add_argument("--json", action="store_true", help="print it as JSON")


def add_bases_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `bases`."""
    parser.add_argument("--plugin", required=True, help="the tab, for example classification")
    parser.add_argument("--language", default="", choices=("", "en", "zh"), help="of the rows")
    parser.add_argument("--preset", choices=PRESETS["label"], default=PRESET, help="what training is estimated for")


def estimate(options: argparse.Namespace, settings: Settings) -> int:
    """Print what a run would need; returns the exit status, 1 where it does not fit. Raises `GraftError`."""
    run_arguments.fetch_rows(settings, options)
    config = run_arguments.to_config(options, find_tab(options.plugin, options.base))
    plan = Runs(settings).plan(config)
    if plan is None:
        raise ModelError(
            f"What a run on {config.model} needs is not known.",
            "It is not on this computer, or of a family whose sizes Graft cannot read.",
            "Fetch it by starting a run, or name another base with --model.",
        )
    found = estimate_run(plan)
    if options.json:
        step, runs = seconds_a_step(settings.home, found)
        known = {"seconds_a_step": step or None, "runs": runs, "advice": [] if found.fits else advice.suggestions(plan)}
        print(json.dumps({**found.to_dict(), **known}, indent=1))
    else:
        print_estimate(found, settings.home)
        if not found.fits:
            print(advice.refusal(plan, found))
    return 0 if found.fits else 1


def bases(options: argparse.Namespace, settings: Settings) -> None:
    """Print a line for each base that suits a tab. Raises `GraftError`."""
    free = machine.measure(settings.home)
    lines = [("base", "parameters", "languages", "licence", "context", "answering", "training", "why")]
    for one in advice.advise(find_tab(options.plugin), settings, free, options.language, options.preset):
        base = one.base
        lines.append(
            (
                base.id + (" (here)" if one.here else ""),
                f"{base.shape.parameters / 1e6:,.0f} M",
                base.languages,
                base.licence,
                f"{base.shape.window:,}",
                gigabytes(one.serving),
                gigabytes(one.estimate.peak),
                base.why,
            )
        )
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
    """Return the estimate in one line, with the time where earlier runs in `home` tell it."""
    where = f" of {found.available.gpu_name}" if found.available.gpu else ""
    needs = f"needs {gigabytes(found.peak)} of {gigabytes(found.free)} free{where}, {gigabytes(found.stored)} of disk"
    step, runs = seconds_a_step(home, found)
    time = f", about {duration(step * found.steps)} as earlier runs on this base took ({runs})" if runs else ""
    return f"{needs}, {found.steps:,} steps{time}"


def duration(seconds: float) -> str:
    """Return seconds in a unit that suits their size."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
