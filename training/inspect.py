"""The child process that reports on a file of rows, with little memory, because the file comes from anybody.

    python -m training.inspect FILE --answers label --columns text=body,target=kind

prints the report as a line of JSON each time that more of it is known: first what reading the file tells, then, with
`--model` and where that base is on this disk, what its tokenizer makes of the rows. Exits with 0, or prints
`{"what", "why", "next"}` and exits with 2. It asks no network and imports no torch.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from errors import GraftError
from settings import Settings
from store.models import ModelStore
from tasks import Columns
from training.config import TrainConfig
from training.data import read_table
from training.report import Report
from training.rows import parse_columns
from training.sampling import Sample


def main(arguments: Sequence[str], memory: int = 4 * 2**30) -> int:
    """Print the report of one file, or why there is none, in at most `memory` bytes; the exit code of the process."""
    options = _parser().parse_args(arguments)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    try:
        wanted, sample = Columns(**parse_columns(options.wanted)), Sample()
        given = parse_columns(options.columns)
        report = read_table(options.file, options.answers, wanted, given, sample=sample).report
        print(report.to_json(), flush=True)
        if options.model:
            print(_with_tokens(report, sample, options).to_json())
    except GraftError as error:
        print(json.dumps({"what": error.what, "why": error.why, "next": error.next}))
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m training.inspect", description="Report on a file of rows.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--answers", choices=("label", "text"), required=True)
    parser.add_argument("--columns", default="", help="your choice, taken as it is: text=COLUMN,target=COLUMN")
    parser.add_argument("--wanted", default="text=text,target=target", help="the tab's own names, guessed at if absent")
    parser.add_argument("--model", default="", help="the base whose tokens are counted, if it is on this disk")
    parser.add_argument("--task", default="", help="the task of the tab")
    parser.add_argument("--prompt", default="", help="how a text is put to the base")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of one row")
    return parser


def _with_tokens(report: Report, sample: Sample, options: argparse.Namespace) -> Report:
    """The report with what the base's tokenizer makes of the rows; the same where that cannot be told."""
    settings = Settings.from_env()
    try:
        model = ModelStore(settings.home / "models", offline=True).resolve(options.model)
    except GraftError:
        return report
    config = TrainConfig(
        name="report", plugin="report", model=options.model, task=options.task, data=str(options.file),
        columns=parse_columns(options.wanted), prompt=options.prompt, max_length=options.max_length,
    )  # fmt: skip
    # As the language has it: a module that is None cannot be imported, so transformers goes without.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    from training import preview  # noqa: PLC0415 - transformers, which takes longer than most files

    rows = [one.row for one in sample.first(preview.ROWS, preview.CHARACTERS)]
    return replace(report, tokens=preview.Preview(model, config, sorted(report.labels)).tokens(rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
