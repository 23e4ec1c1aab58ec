"""Corrections and lessons from a terminal.

python -m training corrections list|export|add|edit|delete|undo --plugin TAB ...
python -m training teach --plugin TAB
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence

from errors import DataError
from settings import Settings
from store.corrections import Corrections, as_jsonl
from tasks import TabSpec
from training.runs.run import Run
from training.runs.runs import Runs
from training.runs.teach import teach

CLIPPED = 70
FindTab = Callable[[str], TabSpec]


def corrections(options: argparse.Namespace, settings: Settings, find_tab: FindTab) -> None:
    """One command about the corrections of a tab; raises `GraftError`."""
    VERBS[options.act](Corrections(settings.home), find_tab(options.plugin), options)


def lesson(options: argparse.Namespace, settings: Settings, find_tab: FindTab, id: str) -> tuple[Runs, Run]:
    """Queue a lesson of that id, and print what must be known of it; raises `GraftError`."""
    runs = Runs(settings)
    run, warning = teach(settings, runs, find_tab(options.plugin), id)
    if warning:
        print(warning, file=sys.stderr)
    return runs, run


def parser() -> argparse.ArgumentParser:
    """The options of both commands."""
    made = argparse.ArgumentParser("python -m training", description="What was corrected, and lessons on it.")
    verbs = made.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("teach", help="train on a tab's corrections, beside rows of its version's own")
    one.add_argument("--plugin", required=True, help="the tab")
    one.add_argument("--detach", action="store_true", help="leave once it is queued, instead of following it")
    acts = verbs.add_parser("corrections", help="what was corrected in a tab").add_subparsers(dest="act", required=True)
    for act, said in SAID.items():
        sub = acts.add_parser(act, help=said, description=said)
        sub.add_argument("--plugin", required=True, help="the tab")
        if act in ("edit", "delete"):
            sub.add_argument("id", help="as `list` has it")
        if act == "add":
            sub.add_argument("--text", required=True, help="what was asked")
        if act in ("add", "edit"):
            sub.add_argument("--target", required=True, help="the right label, summary or reply")
    return made


def _list(kept: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    for one in kept.list(tab.name):
        asked, target = (json.dumps(" ".join(text.split())[:CLIPPED], ensure_ascii=False) for text in
                         (one.asked, one.target))  # fmt: skip
        print(one.id, one.taught or "new", asked, "->", target)


def _export(kept: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    columns = {part: name for part, name in vars(tab.columns).items() if name} if tab.columns else {}
    sys.stdout.write(as_jsonl(kept.list(tab.name), columns))


def _add(kept: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    if tab.columns is None:
        raise DataError(f"The tab {tab.name} does not learn.", "It names no columns.")
    messages = [{"role": "user", "content": options.text}, {"role": "assistant", "content": options.target}]
    row = {"messages": messages} if tab.columns.messages else {"text": options.text, "target": options.target}
    print(kept.add(tab.name, row).id, "is kept.")


def _edit(kept: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    print(kept.edit(tab.name, options.id, options.target).id, "is changed.")


def _delete(kept: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    kept.delete(tab.name, options.id)
    print(options.id, "is deleted; undo brings it back.")


def _undo(kept: Corrections, tab: TabSpec, options: argparse.Namespace) -> None:
    kept.undo(tab.name)
    print("The last change is undone.")


VERBS: Mapping[str, Callable[[Corrections, TabSpec, argparse.Namespace], None]] = {
    "list": _list, "export": _export, "add": _add, "edit": _edit, "delete": _delete, "undo": _undo,
}  # fmt: skip
SAID = {
    "list": "every correction, newest first",
    "export": "as rows to train on, JSONL, to the standard output",
    "add": "keep a row",
    "edit": "give one another right answer",
    "delete": "take one out",
    "undo": "take back the last change, then the one before",
}
COMMANDS: Sequence[str] = ("corrections", "teach")
