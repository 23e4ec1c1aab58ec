"""Takes in an adapter that was made elsewhere, and takes a version away, from a terminal or for the page.

    python -m training import tickets-lora.zip --plugin classification --name theirs --labels billing,bug,praise
    python -m training export tickets@1 tickets.zip
    python -m training export tickets@1 tickets-model --merged
    python -m training export tickets@1 tickets-model.zip --merged

Both print each phase on a line, and the result on the last one. Torch is imported once the arguments are valid.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from errors import GraftError
from settings import Settings
from store import processes
from store.adapters import AdapterStore
from store.archive import pack
from training.cli.tabs import find_tab

COMMANDS = ("import", "export")
NICENESS = 5
"""Serving on the same machine comes first."""
ONE_LINE = "--refuse-in-one-line"
"""Hidden option of a child of the page: a refusal is printed as `store.processes.fail` does."""

_say = partial(print, flush=True)


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `import`."""
    parser.add_argument("source", type=Path, help="a PEFT folder, or a zip of one")
    parser.add_argument("--plugin", required=True, help="the tab that it is for, for example classification")
    parser.add_argument("--name", required=True, help="the adapter's name here; it gets its next version")
    parser.add_argument("--labels", default="", help="of a classifier, in the order of its logits: billing,bug,praise")
    parser.add_argument("--prompt", help="the prompt it was trained with, with one {text}, if not the tab's")
    parser.add_argument("--base", help="another base than the tab's: a Hub id or a folder")
    parser.add_argument(ONE_LINE, action="store_true", help=argparse.SUPPRESS)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `export`."""
    parser.add_argument("version", help="such as tickets@1")
    parser.add_argument("target", type=Path, help="the zip to write, or with --merged the folder or zip")
    parser.add_argument("--merged", action="store_true", help="merge it into its base, as a model of its own")
    parser.add_argument("--base", help="where that base lies, if it is a folder that no run here was made on")
    parser.add_argument(ONE_LINE, action="store_true", help=argparse.SUPPRESS)


def import_adapter(options: argparse.Namespace) -> str:
    """Publish the adapter in a zip or folder; returns the version. Raises `GraftError`."""
    spec = find_tab(options.plugin, options.base)
    labels = options.labels.replace("，", ",").split(",")
    take_in = importlib.import_module("training.publish.import_peft").take_in
    try:
        version = take_in(options.source, spec, options.name, Settings.from_env(), labels, options.prompt, _say)
    except OSError as error:
        raise GraftError(f"{options.source} could not be read.", f"{error.strerror or error}.") from error
    return str(version.ref)


def export_version(options: argparse.Namespace) -> str:
    """Write a version's zip, or merge it into its base; returns the path. Raises `GraftError`."""
    settings = Settings.from_env()
    version = AdapterStore(settings.home, settings.shipped).get(options.version)
    try:
        if options.merged:
            os.nice(NICENESS)
            merge = importlib.import_module("training.publish.export").export_merged
            merge(version, options.target, settings, options.base, _say)
        else:
            pack(version, options.target)
    except OSError as error:
        raise GraftError(f"{options.target} could not be written.", f"{error.strerror or error}.") from error
    return str(options.target)


def main(arguments: Sequence[str]) -> int:
    """Run `import` or `export`; returns the exit status: 0 done, 2 refused."""
    parser = argparse.ArgumentParser("python -m training", description="Take adapters in, and versions away.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    add_import_arguments(verbs.add_parser("import", help="take in an adapter made elsewhere"))
    add_export_arguments(verbs.add_parser("export", help="take a version away"))
    options = parser.parse_args(arguments)
    try:
        print(import_adapter(options) if options.verb == "import" else export_version(options))
    except GraftError as error:
        if options.refuse_in_one_line:
            return processes.fail(error)
        print(error, file=sys.stderr)
        return processes.REFUSED
    return 0
