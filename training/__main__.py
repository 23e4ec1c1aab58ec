"""Train from a terminal: the same run that the page starts, with a progress bar and the card at the end.

    python -m training --plugin classification --data examples/tickets.csv --name tickets --promote

A running app notices the new version by itself. Ctrl-C cancels the run. One run goes on at a time; others wait their
turn. What can be done with runs that there are is in `training/commands.py`: `python -m training runs`.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from errors import ConfigError, GraftError
from settings import REPOSITORY, Settings, child_environment
from store.models import ModelStore
from tasks import Columns, TabSpec
from training import commands
from training.commands import print_result
from training.config import TrainConfig
from training.data import parse_columns
from training.knobs import KNOBS, PRESET, PRESETS
from training.record import Run
from training.report import Report
from training.runs import Runs, new_id

POLL_S = 0.3
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "whole": {"type": int}, "number": {"type": float}, "choice": {}, "text": {},
    "switch": {"action": argparse.BooleanOptionalAction},
}  # fmt: skip
"""How a setting of each kind is read."""


def main(arguments: Sequence[str]) -> int:
    """Train one version and print its card; the exit code: 0 published, 1 failed, 2 refused, 3 paused, 130 ended."""
    # Set anew, because a shell that starts this in the background has it ignored, and then Ctrl-C would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments and arguments[0] in commands.COMMANDS:
        return commands.main(arguments)
    options, id = _parser().parse_args(arguments), new_id()
    try:
        settings = Settings.from_env()
        spec = find_tab(options.plugin, options.base)
        config, runs = _config(options, spec), Runs(settings)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m training", description="Train a new version of an adapter for one tab.")
    parser.add_argument("--plugin", required=True, help="the tab to train for, for example classification")
    parser.add_argument("--data", required=True, type=Path, help="CSV, TSV, JSONL or Parquet")
    parser.add_argument("--name", required=True, help="the adapter's name; it gets its next version")
    parser.add_argument("--held-out-data", type=lambda p: str(Path(p).absolute()), help="rows to compare on, in a file")
    parser.add_argument("--columns", default="", help="columns of the file: text=COLUMN,target=COLUMN")
    parser.add_argument("--base", help="another base than the tab's: a Hub id or a folder")
    parser.add_argument("--preset", choices=PRESETS["label"], default=PRESET, help="what the settings below begin with")
    parser.add_argument("--promote", action="store_true", help="answer with it at once, if it is not worse")
    parser.add_argument("--detach", action="store_true", help="leave once it is queued, instead of following it")
    settings = parser.add_argument_group("settings")
    for name, knob in KNOBS.items():
        options = {**OPTIONS[knob.kind], "choices": knob.choices or None}
        if knob.kind == "switch":
            del options["choices"]
        settings.add_argument(f"--{name.replace('_', '-')}", help=sentence(knob.help), **options)
    return parser


def sentence(help: str) -> str:
    """A sentence as argparse's own helps are written."""
    return help[0].lower() + help[1:].rstrip(".")


def _config(options: argparse.Namespace, spec: TabSpec) -> TrainConfig:
    chosen: dict[str, Any] = {key: getattr(options, key) for key in (*KNOBS, "preset", "promote", "held_out_data")}
    chosen["mapping"] = parse_columns(options.columns) or None
    return TrainConfig.for_tab(spec, options.data, options.name, **chosen)


def _download(settings: Settings, model: str) -> None:
    """Fetch the base here, where the user's token is; the child gets none."""
    with tqdm(total=100, desc=model, unit="%", leave=False, disable=None) as bar:

        def progress(phase: str, fraction: float | None) -> None:
            bar.set_description(f"{phase} {model}")
            bar.update(round(100 * (fraction or 0)) - bar.n)

        ModelStore(settings.home / "models", settings.offline).resolve(model, progress)


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
