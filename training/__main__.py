"""Train from a terminal: the same run that the page starts, with a progress bar and the card at the end.

    python -m training --plugin classification --data examples/tickets.csv --name tickets --promote

A running app notices the new version by itself. Ctrl-C cancels the run. One run goes on at a time; others wait their
turn. What can be done with runs that there are is in `run_commands.py`: `python -m training runs`. What one would
need is in `training/cli/estimate_command.py`: `python -m training estimate`. Adapters made elsewhere are taken in, and
versions taken away, by `training/cli/transfer_commands.py`: `python -m training import`, `python -m training export`.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from tqdm import tqdm

from errors import GraftError
from settings import Settings
from training.cli import (
    correction_commands,
    estimate_command,
    inspect_command,
    run_arguments,
    run_commands,
    transfer_commands,
)
from training.cli.fetch import fetch_model, fetch_rows
from training.cli.run_commands import print_result
from training.cli.tabs import find_tab
from training.data.inspect.report import Report
from training.data.rows import parse_columns
from training.runs.run import Run
from training.runs.runs import Runs, new_id

POLL_S = 0.3


def main(arguments: Sequence[str]) -> int:
    """Train one version and print its card; the exit code: 0 published, 1 failed, 2 refused, 3 paused, 130 ended."""
    # Set anew, because a shell that starts this in the background has it ignored, and then Ctrl-C would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments and arguments[0] in run_commands.COMMANDS:
        return run_commands.main(arguments)
    if arguments and arguments[0] in correction_commands.COMMANDS:
        return _teach(arguments)
    if arguments and arguments[0] in inspect_command.COMMANDS:
        return inspect_command.main(arguments)
    if arguments and arguments[0] in estimate_command.COMMANDS:
        return estimate_command.main(arguments)
    if arguments and arguments[0] in transfer_commands.COMMANDS:
        return transfer_commands.main(arguments)
    options, id = run_arguments.parser().parse_args(arguments), new_id()
    try:
        settings = Settings.from_env()
        spec = find_tab(options.plugin, options.base)
        run_arguments.to_config(options, spec)  # what is wrong with it is said before anything is fetched
        fetch_rows(settings, options)
        config, runs = run_arguments.to_config(options, spec), Runs(settings)
        _print_report(runs.inspect(options.data, spec, parse_columns(options.columns)))
        fetch_model(settings, spec.model)
        if plan := runs.plan(config):
            print(f"It {estimate_command.sentence(plan.estimate(), settings.home)}.")
        run = runs.submit(config, id)
        if options.detach:
            return _detached(run)
        return print_result(_follow(runs, id))
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _cancel(id)


def _teach(arguments: Sequence[str]) -> int:
    """One command about corrections or a lesson; the exit code is as of `main`."""
    options, id = correction_commands.parser().parse_args(arguments), new_id()
    try:
        if options.verb == "corrections":
            correction_commands.corrections(options, Settings.from_env(), find_tab)
            return 0
        runs, run = correction_commands.lesson(options, Settings.from_env(), find_tab, id)
        return _detached(run) if options.detach else print_result(_follow(runs, id))
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _cancel(id)
    except BrokenPipeError:
        return 130


def _detached(run: Run) -> int:
    print(run_commands.waiting(run) if run.place else f"{run.id} has begun.")
    print(f"python -m training show {run.id}")
    return 0


def _cancel(id: str) -> int:
    """End the run of that id, whether or not it has come into being."""
    with suppress(GraftError):
        Runs(Settings.from_env()).cancel(id)
    print("Cancelled; nothing was published.", file=sys.stderr)
    return 130


def _follow(runs: Runs, id: str) -> Run:
    """Draw the run's progress until it ends; where nobody watches a terminal, print each phase once."""
    said = ""
    with tqdm(total=None, unit="step", disable=None) as bar:
        while (run := runs.get(id)).active:
            runs.advance()
            progress = run.progress
            now = run_commands.waiting(run) if run.place else progress.phase
            if now != said:
                said = now
                bar.set_description(said)
                if bar.disable:
                    print(said, flush=True)
            if progress.steps:
                bar.total = progress.steps
                bar.set_postfix(loss=f"{progress.latest.get('loss', 0):.3f}", refresh=False)
            bar.update(progress.step - bar.n)
            time.sleep(POLL_S)
    return run


def _print_report(report: Report) -> None:
    print(f"{report.file}: {report.usable:,} of {report.rows:,} rows can be used.")
    for bad in report.bad[:5]:
        print(f"  row {bad.number:,}: {bad.reason}")
    for warning in report.warnings:
        print(f"  {warning}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
