"""The command `corrections`: list, export, add, edit and delete what was corrected in a tab, and undo that.

python -m training corrections list --plugin classification
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping

from errors import DataError
from settings import Settings
from store.corrections import Corrections, as_jsonl
from tasks import TabSpec
from training.cli.tabs import find_tab

CLIPPED = 70
"""Characters of a text in a list."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `corrections`."""
    acts = parser.add_subparsers(dest="act", required=True)
    for name, (_, help) in ACTS.items():
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
    act, _ = ACTS[options.act]
    act(Corrections(settings.home), find_tab(options.plugin), options)


def _list(corrections: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    for one in corrections.list(tab.name):
        texts = (" ".join(text.split())[:CLIPPED] for text in (one.question, one.target))
        asked, target = (json.dumps(text, ensure_ascii=False) for text in texts)
        print(one.id, one.taught or "new", asked, "->", target)


def _export(corrections: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    columns = {part: name for part, name in vars(tab.columns).items() if name} if tab.columns else {}
    sys.stdout.write(as_jsonl(corrections.list(tab.name), columns))


def _add(corrections: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    if tab.columns is None:
        raise DataError(f"The tab {tab.name} does not learn.", "It names no columns.")
    messages = [{"role": "user", "content": options.text}, {"role": "assistant", "content": options.target}]
    row = {"messages": messages} if tab.columns.messages else {"text": options.text, "target": options.target}
    print(corrections.add(tab.name, row).id, "is kept.")


def _edit(corrections: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    print(corrections.edit(tab.name, options.id, options.target).id, "is changed.")


def _delete(corrections: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    corrections.delete(tab.name, options.id)
    print(options.id, "is deleted; undo brings it back.")


def _undo(corrections: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    corrections.undo(tab.name)
    print("The last change is undone.")


ACTS: Mapping[str, tuple[Callable[[Corrections, TabSpec, argparse.Namespace], None], str]] = {
    "list": (_list, "print every correction, newest first"),
    "export": (_export, "print them as rows to train on, JSONL"),
    "add": (_add, "keep a row"),
    "edit": (_edit, "give one another right answer"),
    "delete": (_delete, "take one out"),
    "undo": (_undo, "take back the last change, then the one before"),
}
