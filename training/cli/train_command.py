"""The commands `train` and `teach`: queue a run, and follow it with a progress bar until its card.

Ctrl-C cancels the run. One run goes on at a time; others wait their turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress

from errors import GraftError
from models.resolve import ModelStore
from settings import Settings
from training.cli import estimate_command, run_arguments
from training.cli.tabs import find_tab
from training.cli.terminal import INTERRUPTED, describe_place, download_bar, follow, print_result
from training.data.inspect.report import Report
from training.data.rows import parse_columns
from training.estimate.estimate import estimate_run
from training.runs.run import Run
from training.runs.runs import Runs, new_id
from training.runs.teach import teach


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `train`."""
    run_arguments.add_arguments(parser)
    _add_detach(parser)


def add_teach_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `teach`."""
    parser.add_argument("--plugin", required=True, help="the tab")
    _add_detach(parser)


def train(options: argparse.Namespace, settings: Settings) -> int:
    """Train one version and print its card; returns the exit status. Raises `GraftError`."""

    def submit(runs: Runs, id: str) -> Run:
        spec = find_tab(options.plugin, options.base)
        run_arguments.to_config(options, spec)  # raises before anything is fetched
        run_arguments.fetch_rows(settings, options)
        config = run_arguments.to_config(options, spec)
        _print_report(runs.inspect(options.data, spec, parse_columns(options.columns)))
        with download_bar(spec.model) as progress:
            ModelStore(settings.home / "models", settings.offline).resolve(spec.model, progress)
        if plan := runs.plan(config):
            print(f"It {estimate_command.sentence(estimate_run(plan), settings.home)}.")
        return runs.submit(config, id)

    return _run(settings, submit, options.detach)


def teach_tab(options: argparse.Namespace, settings: Settings) -> int:
    """Train on the corrections of a tab; returns the exit status. Raises `GraftError`."""

    def submit(runs: Runs, id: str) -> Run:
        run, warning = teach(settings, runs, find_tab(options.plugin), id)
        if warning:
            print(warning, file=sys.stderr)
        return run

    return _run(settings, submit, options.detach)


def _run(settings: Settings, submit: Callable[[Runs, str], Run], detach: bool) -> int:
    """Queue a run with `submit`, and follow it or leave; on Ctrl-C cancel it, if it is queued already."""
    runs, id = Runs(settings), new_id()
    try:
        run = submit(runs, id)
        if not detach:
            return print_result(follow(runs, id))
    except KeyboardInterrupt:
        with suppress(GraftError):
            runs.cancel(id)
        print("Cancelled; nothing was published.", file=sys.stderr)
        return INTERRUPTED
    print(describe_place(run) if run.place else f"{run.id} has begun.")
    print(f"python -m training show {run.id}")
    return 0


def _add_detach(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--detach", action="store_true", help="leave once it is queued, instead of following it")


def _print_report(report: Report) -> None:
    print(f"{report.file}: {report.usable:,} of {report.rows:,} rows can be used.")
    for bad in report.bad[:5]:
        print(f"  row {bad.number:,}: {bad.reason}")
    for warning in report.warnings:
        print(f"  {warning}")
