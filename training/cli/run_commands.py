"""What the command line can do with runs that there are, and how it tells of them.

python -m training runs
python -m training show|pause|resume|cancel|delete|log ID
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from errors import GraftError, RunError
from settings import Settings
from training.events import LOG
from training.runs.run import Run
from training.runs.runs import Runs

HEAD = ("run", "state", "adapter", "tab", "result", "began", "took")
PAUSED = 3
"""Exit code of a run that was paused while it was followed."""


def main(arguments: Sequence[str]) -> int:
    """One command about runs; the exit code: 0 done, 2 refused."""
    options = _parser().parse_args(arguments)
    try:
        runs = Runs(Settings.from_env())
        if options.verb == "runs":
            print_table(runs.list())
        else:
            VERBS[options.verb](runs, options.id)
    except GraftError as error:
        print(error, file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        return 130
    return 0


def print_table(found: Sequence[Run]) -> None:
    """A line for each run, newest first."""
    lines = [HEAD, *((run.id, _state(run), run.name, run.plugin, _outcome(run), *_times(run)) for run in found)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_result(run: Run) -> int:
    """How a run ended, for somebody who has followed it; the exit code of `python -m training`."""
    if run.state == "paused":
        print(f"Paused. python -m training resume {run.id}", file=sys.stderr)
        return PAUSED
    if run.state == "cancelled":
        print("Cancelled; nothing was published.", file=sys.stderr)
        return 130
    if run.state != "done":
        _print_failure(run)
        return 1
    result = run.result
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
    if taught := card.get("corrections"):
        before = f", {taught['before']} before" if taught["before"] is not None else ""
        print(f"{taught['new']} of {taught['rows']} corrections are answered right{before}.")
    print(f"{card[changes[0]]} rows {changes[0]}, {card[changes[1]]} {changes[1]}. {card['gate']['why']}\n")


def waiting(run: Run) -> str:
    """What is said of a run that waits its turn."""
    others = run.place - 1
    return f"{run.id} waits its turn behind {'the run that goes on' if not others else f'{others + 1} others'}."


def _show(runs: Runs, id: str) -> None:
    run, progress = runs.get(id), runs.get(id).progress
    print_table([run])
    print(run.folder)
    if run.state == "queued":
        print(waiting(run))
    if progress.steps:
        figures = (f"{key} {value:.4g}" for key, value in progress.latest.items())
        print(f"step {progress.step} of {progress.steps}:", ", ".join(figures))
    if run.state in ("failed", "interrupted"):
        _print_failure(run)
    if card := run.result.get("card"):
        print_card(card)


def _pause(runs: Runs, id: str) -> None:
    runs.pause(id)
    print("It stops at its next step, with a checkpoint.")


def _resume(runs: Runs, id: str) -> None:
    runs.resume(id)
    run = runs.get(id)
    print(waiting(run) if run.state == "queued" else f"{id} goes on.")


def _cancel(runs: Runs, id: str) -> None:
    runs.cancel(id)
    print(f"{id} is {runs.get(id).state}.")


def _delete(runs: Runs, id: str) -> None:
    runs.delete(id)
    print(f"{id} is deleted; what it published stays.")


def _log(runs: Runs, id: str) -> None:
    path = runs.get(id).folder / LOG
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            shutil.copyfileobj(file, sys.stdout)


VERBS: Mapping[str, Callable[[Runs, str], None]] = {
    "show": _show, "pause": _pause, "resume": _resume, "cancel": _cancel, "delete": _delete, "log": _log,
}  # fmt: skip
COMMANDS = ("runs", *VERBS)
SAID = {
    "show": "how far it is, or how it ended",
    "pause": "stop it at its next step, with a checkpoint",
    "resume": "let a paused or interrupted one go on",
    "cancel": "end it; nothing is published",
    "delete": "remove it and its folder; versions stay",
    "log": "what its process printed",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m training", description="Runs that there are.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("runs", help="every run, newest first")
    for verb, said in SAID.items():
        verbs.add_parser(verb, help=said, description=said).add_argument("id", help="as `runs` lists it")
    return parser


def _print_failure(run: Run) -> None:
    result = run.result
    print(str(RunError(*(str(result.get(part, "")) for part in ("what", "why", "next")))), file=sys.stderr)
    print(*result.get("log", []), sep="\n", file=sys.stderr)


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
