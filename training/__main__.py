"""Train from a terminal: the same run that the page starts, with a progress bar and the card at the end.

    python -m training --plugin classification --data examples/tickets.csv --name tickets --promote

A running app notices the new version by itself. Ctrl-C cancels the run. One run goes on at a time; others wait their
turn. What can be done with runs that there are is in `training/commands.py`: `python -m training runs`.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from errors import ConfigError, GraftError
from settings import REPOSITORY, Settings, child_environment
from store.models import ModelStore
from store.progress import Progress
from tasks import Columns, TabSpec
from training import command_line, commands
from training.commands import print_result
from training.hub import HubData
from training.record import Run
from training.report import Report
from training.rows import parse_columns
from training.runs import Runs, new_id
from training.selection import read_selection

POLL_S = 0.3


def main(arguments: Sequence[str]) -> int:
    """Train one version and print its card; the exit code: 0 published, 1 failed, 2 refused, 3 paused, 130 ended."""
    # Set anew, because a shell that starts this in the background has it ignored, and then Ctrl-C would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments and arguments[0] in commands.COMMANDS:
        return commands.main(arguments)
    options, id = command_line.parser().parse_args(arguments), new_id()
    try:
        settings = Settings.from_env()
        spec = find_tab(options.plugin, options.base)
        command_line.to_config(options, spec)  # what is wrong with it is said before anything is fetched
        _fetch_rows(settings, options)
        config, runs = command_line.to_config(options, spec), Runs(settings)
        _print_report(runs.inspect(options.data, spec, parse_columns(options.columns)))
        _download(settings, spec.model)
        run = runs.submit(config, id)
        if options.detach:
            print(commands.waiting(run) if run.place else f"{id} has begun.", f"python -m training show {id}", sep="\n")
            return 0
        return print_result(_follow(runs, id))
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _cancel(id)


def _cancel(id: str) -> int:
    """End the run of that id, whether or not it has come into being."""
    with suppress(GraftError):
        Runs(Settings.from_env()).cancel(id)
    print("Cancelled; nothing was published.", file=sys.stderr)
    return 130


def find_tab(name: str, base: str | None = None) -> TabSpec:
    """The facts of a tab, asked of a child process, so that training never imports a plugin. Raises `GraftError`."""
    child = subprocess.run(
        [sys.executable, "-m", "plugins"],
        cwd=REPOSITORY, env=child_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    # A plugin may print when it is imported; the facts are the lines that are theirs.
    lines = [line for line in child.stdout.splitlines() if line.startswith('{"name": ')]
    tabs = {tab["name"]: tab for tab in map(json.loads, lines)}
    found = tabs.get(name)
    if found is None:
        raise ConfigError("--plugin", [f"There is no tab {name!r}; there are: {', '.join(tabs) or child.stderr}."])
    if "error" in found:
        raise ConfigError("--plugin", [found["error"]])
    columns = Columns(**found["columns"]) if found["columns"] else None
    if base and Path(base).is_dir():
        base = str(Path(base).absolute())
    return TabSpec(name, base or found["model"], found["task"], columns, found["prompt"])


def _fetch_rows(settings: Settings, options: Namespace) -> None:
    """Fetch rows that are on the Hub, and put where they lie into the options."""
    place = command_line.place_of(options)
    if place is None:
        return
    with _bar(place.id) as progress:
        options.data = HubData.of(settings).fetch(place, progress)
    options.hub = read_selection(options.data).source


def _download(settings: Settings, model: str) -> None:
    """Fetch the base here, where the user's token is; the child gets none."""
    with _bar(model) as progress:
        ModelStore(settings.home / "models", settings.offline).resolve(model, progress)


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    """Draws what is told of a download."""
    with tqdm(total=100, desc=name, unit="%", leave=False, disable=None) as bar:

        def progress(phase: str, fraction: float | None) -> None:
            bar.set_description(f"{phase} {name}")
            bar.update(round(100 * (fraction or 0)) - bar.n)

        yield progress


def _follow(runs: Runs, id: str) -> Run:
    """Draw the run's progress until it ends; where nobody watches a terminal, print each phase once."""
    said = ""
    with tqdm(total=None, unit="step", disable=None) as bar:
        while (run := runs.get(id)).active:
            runs.advance()
            progress = run.progress
            now = commands.waiting(run) if run.place else progress.phase
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
    print(f"{report.file}: {report.usable} of {report.rows} rows can be used.")
    for bad in report.bad[:5]:
        print(f"  row {bad.number}: {bad.reason}")
    for warning in report.warnings:
        print(f"  {warning}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
