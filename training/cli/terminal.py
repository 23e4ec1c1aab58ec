"""Output that several commands share: tables, cards, the progress and the result of a run, and downloads."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from hub.client import Progress
from training.runs.run import Run
from training.runs.runs import Runs

FAILED, PAUSED, INTERRUPTED = 1, 3, 130
"""Exit statuses of a command that followed a run."""
POLL_S = 0.3


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Print lines of cells in columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())


def print_card(card: Mapping[str, Any]) -> None:
    """Print the table of a card, with a column for each model that was compared."""
    columns = [name for name in ("base", "live", "new") if card[name]]
    print(f"\n{card['held_out']} held-out rows".ljust(22), *(name.rjust(10) for name in columns))
    for metric in card["new"]:
        print(metric.ljust(21), *(f"{card[name][metric]:10.3f}" for name in columns))
    up, down = ("better", "worse") if card.get("better") or card.get("worse") else ("fixed", "broken")
    if counts := card.get("corrections"):
        before = f", {counts['before']} before" if counts["before"] is not None else ""
        print(f"{counts['new']} of {counts['rows']} corrections are answered right{before}.")
    print(f"{card[up]} rows {up}, {card[down]} {down}. {card['gate']['why']}\n")


def print_failure(run: Run) -> None:
    """Print why a run did not succeed, and the end of its log."""
    print(run.error, file=sys.stderr)
    print(*run.result.get("log", []), sep="\n", file=sys.stderr)


def print_result(run: Run) -> int:
    """Print the result of a run that was followed; returns the exit status."""
    if run.state == "paused":
        print(f"Paused. python -m training resume {run.id}", file=sys.stderr)
        return PAUSED
    if run.state == "cancelled":
        print("Cancelled; nothing was published.", file=sys.stderr)
        return INTERRUPTED
    if run.state != "done":
        print_failure(run)
        return FAILED
    result = run.result
    print_card(result["card"])
    live = "It answers now." if result["promoted"] else "It waits for you: promote it on the page, under Adapters."
    print(f"{result['version']} is published. {live}")
    return 0


def describe_place(run: Run) -> str:
    """Return a sentence on the place of a run in the queue."""
    behind = "the run that goes on" if run.place == 1 else f"{run.place} others"
    return f"{run.id} waits its turn behind {behind}."


def follow(runs: Runs, id: str) -> Run:
    """Draw the progress of a run until it ends; where the output is no terminal, print each phase once."""
    shown = ""
    with tqdm(total=None, unit="step", disable=None) as bar:
        while (run := runs.get(id)).active:
            runs.advance()
            progress = run.progress
            phase = describe_place(run) if run.place else progress.phase
            if phase != shown:
                shown = phase
                bar.set_description(shown)
                if bar.disable:
                    print(shown, flush=True)
            if progress.steps:
                bar.total = progress.steps
                bar.set_postfix(loss=f"{progress.latest.get('loss', 0):.3f}", refresh=False)
            bar.update(progress.step - bar.n)
            time.sleep(POLL_S)
    return run


@contextmanager
def download_bar(name: str) -> Iterator[Progress]:
    """Draw the progress of a download; yields the function to report it to."""
    with tqdm(total=100, desc=name, unit="%", leave=False, disable=None) as bar:

        def report(phase: str, fraction: float | None) -> None:
            bar.set_description(f"{phase} {name}")
            bar.update(round(100 * (fraction or 0)) - bar.n)

        yield report
