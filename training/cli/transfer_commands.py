"""The commands `import`, for an adapter made elsewhere, and `export`, for a version; the page runs them too.

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
from functools import partial
from pathlib import Path

from errors import GraftError
from settings import Settings
from store.adapters import AdapterStore
from store.archive import pack
from training.cli.run_arguments import find_tab, parse_base

NICENESS = 5
"""Lower priority than serving on the same machine."""
ONE_LINE = "--refuse-in-one-line"
"""Hidden option for child processes of the page: errors are printed as by `store.processes.fail`."""

_say = partial(print, flush=True)


def add_import_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `import`."""
    parser.add_argument("source", type=Path, help="a PEFT folder, or a zip of one")
    parser.add_argument("--plugin", required=True, help="the tab that it is for, for example classification")
    parser.add_argument("--name", required=True, help="the adapter's name here; it gets its next version")
    parser.add_argument("--labels", default="", help="of a classifier, in the order of its logits: billing,bug,praise")
    parser.add_argument("--prompt", help="the prompt it was trained with, with one {text}, if not the tab's")
    parser.add_argument("--base", type=parse_base, help="another base than the tab's: a Hub id or a folder")
    parser.add_argument(ONE_LINE, action="store_true", help=argparse.SUPPRESS)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of `export`."""
    parser.add_argument("version", help="such as tickets@1")
    parser.add_argument("target", type=Path, help="the zip to write, or with --merged the folder or zip")
    parser.add_argument("--merged", action="store_true", help="merge it into its base, as a model of its own")
    parser.add_argument("--base", help="where that base lies, if it is a folder that no run here was made on")
    parser.add_argument(ONE_LINE, action="store_true", help=argparse.SUPPRESS)


def import_adapter(options: argparse.Namespace, settings: Settings) -> None:
    """Publish the adapter in a zip or folder, and print its version. Raises `GraftError`."""
    spec = find_tab(options.plugin, options.base)
    labels = options.labels.replace("，", ",").split(",")
    publish = importlib.import_module("training.publish.import_peft").import_adapter
    try:
        version = publish(options.source, spec, options.name, settings, labels, options.prompt, _say)
    except OSError as error:
        raise GraftError(f"{options.source} could not be read.", f"{error.strerror or error}.") from error
    print(version.ref)


def export_version(options: argparse.Namespace, settings: Settings) -> None:
    """Write a version's zip, or merge it into its base, and print the path. Raises `GraftError`."""
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
    print(options.target)
