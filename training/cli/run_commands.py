"""The commands that start runs, `train` and `teach`, list them, `runs`, and show or change one of them.

`train` and `teach` follow their run with a progress bar until its card; Ctrl-C cancels it.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from errors import GraftError
from models.resolve import ModelStore
from settings import Settings
from training.cli import plan_commands, run_arguments
from training.cli.run_arguments import find_tab
from training.cli.terminal import (
    INTERRUPTED,
    describe_place,
    download_bar,
    follow,
    print_card,
    print_failure,
    print_result,
    print_table,
)
from training.data.inspect.report import Report
from training.estimate.estimate import estimate_run
from training.events import LOG
from training.runs.run import Run
from training.runs.runs import Runs, inspection_of, new_id
from training.runs.teach import teach

HEAD = ("run", "state", "adapter", "tab", "result", "began", "took")
VERBS: Mapping[str, str] = {
    "show": "say how far a run is, or how it ended",
    "pause": "stop a run at its next step, with a checkpoint",
    "resume": "let a paused or interrupted run go on",
    "cancel": "end a run; nothing is published",
    "delete": "remove a run and its folder; versions stay",
    "log": "print the output of a run's process",
}
"""Commands about one run, and their help."""


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
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
        config = run_arguments.configure(options, settings)
        *_, report = runs.look(inspection_of(config))
        _print_report(report)
        with download_bar(config.model) as progress:
            ModelStore(settings.home / "models", settings.offline).resolve(config.model, progress)
        if plan := runs.plan(config):
            print(f"It {plan_commands.sentence(estimate_run(plan), settings.home)}.")
        return runs.submit(config, id)

    return _queue(settings, submit, options.detach)


def teach_tab(options: argparse.Namespace, settings: Settings) -> int:
    """Train on the corrections of a tab; returns the exit status. Raises `GraftError`."""

    def submit(runs: Runs, id: str) -> Run:
        run, warning = teach(settings, runs, find_tab(options.plugin), id)
        if warning:
            print(warning, file=sys.stderr)
        return run

    return _queue(settings, submit, options.detach)


def _queue(settings: Settings, submit: Callable[[Runs, str], Run], detach: bool) -> int:
    """Queue a run with `submit`, and follow it unless `detach` is set; Ctrl-C cancels it."""
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


def add_id(parser: argparse.ArgumentParser) -> None:
    """Declare the argument of the commands in `VERBS`."""
    parser.add_argument("id", help="as `runs` lists it")


def print_runs(options: argparse.Namespace, settings: Settings) -> None:
    """Print a line for each run, newest first. Raises `RunError`."""
    _print_runs(Runs(settings).list())


def act(options: argparse.Namespace, settings: Settings) -> None:
    """Carry out one of `VERBS` and print its effect. Raises `RunError`."""
    runs, id = Runs(settings), options.id
    match options.command:
        case "show":
            _show(runs.get(id))
        case "pause":
            runs.pause(id)
            print("It stops at its next step, with a checkpoint.")
        case "resume":
            runs.resume(id)
            run = runs.get(id)
            print(describe_place(run) if run.state == "queued" else f"{id} goes on.")
        case "cancel":
            runs.cancel(id)
            print(f"{id} is {runs.get(id).state}.")
        case "delete":
            runs.delete(id)
            print(f"{id} is deleted; what it published stays.")
        case "log":
            log = runs.get(id).folder / LOG
            if log.exists():
                with log.open(encoding="utf-8", errors="replace") as file:
                    shutil.copyfileobj(file, sys.stdout)


def _show(run: Run) -> None:
    """Print the progress of a run, or its result."""
    progress = run.progress
    _print_runs([run])
    print(run.folder)
    if run.state == "queued":
        print(describe_place(run))
    if progress.steps:
        metrics = (f"{name} {value:.4g}" for name, value in progress.latest.items())
        print(f"step {progress.step} of {progress.steps}:", ", ".join(metrics))
    if run.state in ("failed", "interrupted"):
        print_failure(run)
    if card := run.result.get("card"):
        print_card(card)


def _print_runs(runs: Sequence[Run]) -> None:
    print_table([HEAD, *((run.id, _state(run), run.name, run.plugin, _outcome(run), *_times(run)) for run in runs)])


def _state(run: Run) -> str:
    if run.state == "queued":
        return f"queued, {run.place}."
    progress = run.progress
    share = f" {100 * progress.step / progress.steps:.0f}%" if progress.steps else f" {progress.phase}"
    return run.state + share if run.state == "running" else run.state


def _outcome(run: Run) -> str:
    metric = f" {run.metric} {run.figure:.3f}" if run.metric and run.figure is not None else ""
    return f"{run.version or ''}{metric}"


def _times(run: Run) -> tuple[str, str]:
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started or run.created))
    minutes, seconds = divmod(round(run.duration), 60)
    return began, f"{minutes}:{seconds:02d}" if run.state != "queued" else ""
