"""Train from a terminal: the same run that the page starts, with a progress bar and the card at the end.

    python -m training --plugin classification --data examples/tickets.csv --name tickets --promote

A running app notices the new version by itself. Ctrl-C cancels the run.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from errors import ConfigError, GraftError, RunError
from settings import REPOSITORY, Settings, child_environment
from store.models import ModelStore
from tasks import Columns, TabSpec
from training.config import TrainConfig
from training.data import parse_columns
from training.knobs import KNOBS, PRESET, PRESETS
from training.report import Report
from training.runs import Run, Runs

POLL_S = 0.3
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "whole": {"type": int}, "number": {"type": float}, "choice": {}, "text": {},
    "switch": {"action": argparse.BooleanOptionalAction},
}  # fmt: skip
"""How a setting of each kind is read."""


def main(arguments: Sequence[str]) -> int:
    """Train one version and print its card; the exit code: 0 published, 1 failed, 2 refused, 130 cancelled."""
    # Set anew, because a shell that starts this in the background has it ignored, and then Ctrl-C would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = _parser().parse_args(arguments)
    try:
        settings = Settings.from_env()
        spec = find_tab(options.plugin, options.base)
        config, runs = _config(options, spec), Runs(settings)
        _print_report(runs.inspect(options.data, spec, parse_columns(options.columns)))
        _download(settings, spec.model)
        run = runs.start(config)
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        _follow(run)
    except KeyboardInterrupt:
        runs.cancel(run.id)
        print("Cancelled; nothing was published.", file=sys.stderr)
        return 130
    return _print_result(run)


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


def _follow(run: Run) -> None:
    """Draw the run's progress until it ends; where nobody watches a terminal, print each phase once."""
    phase = ""
    with tqdm(total=None, unit="step", disable=None) as bar:
        while run.state == "running":
            progress = run.progress
            if progress.phase != phase:
                phase = progress.phase
                bar.set_description(phase)
                if bar.disable:
                    print(phase, flush=True)
            if progress.steps:
                bar.total = progress.steps
                bar.set_postfix(loss=f"{progress.losses[-1][1]:.3f}", refresh=False)
            bar.update(progress.step - bar.n)
            time.sleep(POLL_S)


def _print_report(report: Report) -> None:
    print(f"{report.file}: {report.usable} of {report.rows} rows can be used.")
    for bad in report.bad[:5]:
        print(f"  row {bad.number}: {bad.reason}")
    for warning in report.warnings:
        print(f"  {warning}")


def _print_result(run: Run) -> int:
    result = run.result
    if result["state"] != "done":
        print(str(RunError(*(result.get(k, "") for k in ("what", "why", "next")))), file=sys.stderr)
        print(*result.get("log", []), sep="\n", file=sys.stderr)
        return 1
    print_card(result["card"])
    live = "It answers now." if result["promoted"] else "It waits for you: promote it on the page, under Adapters."
    print(f"{result['version']} is published. {live}")
    return 0


def print_card(card: Mapping[str, Any]) -> None:
    """The before/after table."""
    contenders = [name for name in ("base", "live", "new") if card[name]]
    print(f"\n{card['held_out']} held-out rows".ljust(22), *(name.rjust(10) for name in contenders))
    for figure in card["new"]:
        print(figure.ljust(21), *(f"{card[name][figure]:10.3f}" for name in contenders))
    changes = ("better", "worse") if card.get("better") or card.get("worse") else ("fixed", "broken")
    print(f"{card[changes[0]]} rows {changes[0]}, {card[changes[1]]} {changes[1]}. {card['gate']['why']}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
