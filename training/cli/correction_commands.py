"""The command `corrections`: list, export, add, edit and delete the corrections of a tab, and undo changes.

python -m training corrections list --plugin classification
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from errors import DataError
from settings import Settings
from store.corrections import Correction, Corrections, as_jsonl
from tasks import TabSpec
from training.cli.run_arguments import find_tab

SHOWN = 70
"""Characters of a text in the list."""
ACTS = {
    "list": "print every correction, newest first",
    "export": "print them as rows to train on, JSONL",
    "add": "keep a row",
    "edit": "give one another right answer",
    "delete": "take one out",
    "undo": "take back the last change, then the one before",
}
"""Subcommands and their help."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `corrections`."""
    acts = parser.add_subparsers(dest="act", required=True)
    for name, help in ACTS.items():
        act = acts.add_parser(name, help=help, description=help)
        act.add_argument("--plugin", required=True, help="the tab")
        if name in ("edit", "delete"):
            act.add_argument("id", help="as `list` has it")
        if name == "add":
            act.add_argument("--text", required=True, help="what was asked")
        if name in ("add", "edit"):
            act.add_argument("--target", required=True, help="the right label, summary or reply")


def correct(options: argparse.Namespace, settings: Settings) -> None:
    """Carry out one of `ACTS`. Raises `GraftError`."""
    corrections, tab = Corrections(settings.home), find_tab(options.plugin)
    match options.act:
        case "list":
            for correction in corrections.list(tab.name):
                print(_line(correction))
        case "export":
            columns = {part: name for part, name in vars(tab.columns).items() if name} if tab.columns else {}
            sys.stdout.write(as_jsonl(corrections.list(tab.name), columns))
        case "add":
            print(corrections.add(tab.name, _row(tab, options.text, options.target)).id, "is kept.")
        case "edit":
            print(corrections.edit(tab.name, options.id, options.target).id, "is changed.")
        case "delete":
            corrections.delete(tab.name, options.id)
            print(options.id, "is deleted; undo brings it back.")
        case "undo":
            corrections.undo(tab.name)
            print("The last change is undone.")


def _line(correction: Correction) -> str:
    texts = (" ".join(text.split())[:SHOWN] for text in (correction.question, correction.target))
    asked, target = (json.dumps(text, ensure_ascii=False) for text in texts)
    return f"{correction.id} {correction.taught or 'new'} {asked} -> {target}"


def _row(tab: TabSpec, text: str, target: str) -> Mapping[str, Any]:
    if tab.columns is None:
        raise DataError(f"The tab {tab.name} does not learn.", "It names no columns.")
    if tab.columns.messages:
        return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": target}]}
    return {"text": text, "target": target}
