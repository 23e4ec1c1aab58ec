"""The command line: `python -m training`, or `graft` where Graft is installed.

    python -m training --plugin classification --data examples/tickets.csv --name tickets --promote
    python -m training runs

Without a command it trains: the same run that the page starts. A running app notices a new version by itself.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from errors import GraftError
from settings import Settings
from store import processes
from training.cli import correction_commands, plan_commands, run_arguments, run_commands, transfer_commands
from training.cli.terminal import INTERRUPTED

PROGRAM = "python -m training"
DEFAULT = "train"


@dataclass(frozen=True)
class Command:
    """One command: its function returns the exit status, or None for 0."""

    run: Callable[[argparse.Namespace, Settings], int | None]
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], object] = lambda parser: None


COMMANDS: Mapping[str, Command] = {
    DEFAULT: Command(
        run_commands.train, "train a new version of an adapter for one tab", run_commands.add_train_arguments
    ),
    "estimate": Command(
        plan_commands.estimate, "say what a run would need", partial(run_arguments.add_arguments, named=False)
    ),
    "inspect": Command(plan_commands.inspect, "say what is in a file of rows", plan_commands.add_inspect_arguments),
    "bases": Command(plan_commands.bases, "list bases for a tab", plan_commands.add_bases_arguments),
    "plugins": Command(plan_commands.print_tabs, "list the tabs"),
    "runs": Command(run_commands.print_runs, "list every run, newest first"),
    **{verb: Command(run_commands.act, help, run_commands.add_id) for verb, help in run_commands.VERBS.items()},
    "corrections": Command(
        correction_commands.correct, "list, change or export what was corrected", correction_commands.add_arguments
    ),
    "teach": Command(
        run_commands.teach_tab,
        "train on a tab's corrections, beside rows of its version's own",
        run_commands.add_teach_arguments,
    ),
    "import": Command(
        transfer_commands.import_adapter, "take in an adapter made elsewhere", transfer_commands.add_import_arguments
    ),
    "export": Command(transfer_commands.export_version, "take a version away", transfer_commands.add_export_arguments),
}


def parser(program: str = PROGRAM) -> argparse.ArgumentParser:
    """Return the parser of every command; `program` is what help and errors call it."""
    made = argparse.ArgumentParser(
        program,
        description="Train versions of adapters, and look after runs.",
        epilog=f"Without a COMMAND: {DEFAULT}.",
    )
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        description = f"{command.help[0].upper()}{command.help[1:]}."
        added = commands.add_parser(name, help=command.help, description=description, allow_abbrev=False)
        command.add_arguments(added)
    return made


def main(arguments: Sequence[str], program: str = PROGRAM) -> int:
    """Run one command; returns the exit status: 0 done, 1 failed, 2 refused, 3 paused, 130 interrupted."""
    # Set anew, because a shell that starts this in the background has it ignored, and then Ctrl-C would do nothing.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    commands = parser(program)
    if [*arguments] in (["-h"], ["--help"]):
        print(commands.format_help())
    if not arguments or arguments[0] not in COMMANDS:
        arguments = [DEFAULT, *arguments]
    options = commands.parse_args(arguments)
    try:
        return COMMANDS[options.command].run(options, Settings.from_env()) or 0
    except GraftError as error:
        if getattr(options, "refuse_in_one_line", False):
            return processes.fail(error)
        print(error, file=sys.stderr)
        return processes.REFUSED
    except (KeyboardInterrupt, BrokenPipeError):
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
