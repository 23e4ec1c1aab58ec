"""The commands about runs: `runs`, `show`, `pause`, `resume`, `cancel`, `delete` and `log`."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from settings import Settings
from training.cli.terminal import describe_place, print_card, print_failure, print_table
from training.events import LOG
from training.runs.run import Run
from training.runs.runs import Runs

HEAD = ("run", "state", "adapter", "tab", "result", "began", "took")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the argument of every command but `runs`."""
    parser.add_argument("id", help="as `runs` lists it")


def print_runs(options: argparse.Namespace, settings: Settings) -> None:
    """Print a line for each run, newest first. Raises `RunError`."""
    _print_runs(Runs(settings).list())


def show(options: argparse.Namespace, settings: Settings) -> None:
    """Print how far a run is, or how it ended. Raises `RunError`."""
    run = Runs(settings).get(options.id)
    progress = run.progress
    _print_runs([run])
    print(run.folder)
    if run.state == "queued":
        print(describe_place(run))
    if progress.steps:
        figures = (f"{key} {value:.4g}" for key, value in progress.latest.items())
        print(f"step {progress.step} of {progress.steps}:", ", ".join(figures))
    if run.state in ("failed", "interrupted"):
        print_failure(run)
    if card := run.result.get("card"):
        print_card(card)


def pause(options: argparse.Namespace, settings: Settings) -> None:
    """Pause a run. Raises `RunError`."""
    Runs(settings).pause(options.id)
    print("It stops at its next step, with a checkpoint.")


def resume(options: argparse.Namespace, settings: Settings) -> None:
    """Queue a paused or interrupted run again. Raises `RunError`."""
    runs = Runs(settings)
    runs.resume(options.id)
    run = runs.get(options.id)
    print(describe_place(run) if run.state == "queued" else f"{run.id} goes on.")


def cancel(options: argparse.Namespace, settings: Settings) -> None:
    """End a run. Raises `RunError`."""
    runs = Runs(settings)
    runs.cancel(options.id)
    print(f"{options.id} is {runs.get(options.id).state}.")


def delete(options: argparse.Namespace, settings: Settings) -> None:
    """Remove a run and its folder. Raises `RunError`."""
    Runs(settings).delete(options.id)
    print(f"{options.id} is deleted; what it published stays.")


def print_log(options: argparse.Namespace, settings: Settings) -> None:
    """Print the output of a run's process. Raises `RunError`."""
    path = Runs(settings).get(options.id).folder / LOG
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            shutil.copyfileobj(file, sys.stdout)


VERBS: Mapping[str, tuple[Callable[[argparse.Namespace, Settings], None], str]] = {
    "show": (show, "say how far a run is, or how it ended"),
    "pause": (pause, "stop a run at its next step, with a checkpoint"),
    "resume": (resume, "let a paused or interrupted run go on"),
    "cancel": (cancel, "end a run; nothing is published"),
    "delete": (delete, "remove a run and its folder; versions stay"),
    "log": (print_log, "print the output of a run's process"),
}
"""Functions and help of the commands about one run."""


def _print_runs(runs: Sequence[Run]) -> None:
    lines = [HEAD]
    for run in runs:
        lines.append((run.id, _state(run), run.name, run.plugin, _outcome(run), *_times(run)))
    print_table(lines)


def _state(run: Run) -> str:
    if run.state == "queued":
        return f"queued, {run.place}."
    progress = run.progress
    share = f" {100 * progress.step / progress.steps:.0f}%" if progress.steps else f" {progress.phase}"
    return run.state + share if run.state == "running" else run.state


def _outcome(run: Run) -> str:
    figure = f" {run.metric} {run.figure:.3f}" if run.metric and run.figure is not None else ""
    return f"{run.version or ''}{figure}"


def _times(run: Run) -> tuple[str, str]:
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started or run.created))
    minutes, seconds = divmod(round(run.duration), 60)
    return began, f"{minutes}:{seconds:02d}" if run.state != "queued" else ""
