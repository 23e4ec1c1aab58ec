"""Comparisons with other libraries: `python -m bench NAME` runs bench/NAME.py, prints its table and keeps it as JSON.

A benchmark is a module of this package with `run(arguments) -> rows`: a list of mappings, one a line of the table,
whose columns are their keys. Its first line of documentation is what `python -m bench --help` says of it. The JSON,
with the date, the machine and the versions of the libraries, goes to bench/results/.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measure import machine
from settings import prepare_environment

FOLDER = Path(__file__).resolve().parent
Rows = Sequence[Mapping[str, Any]]


def names() -> dict[str, str]:
    """Every benchmark, and what it is: the first line of its module. Nothing is imported for it."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))}
    return {name: text.split("\n")[0].strip('"') for name, text in sources.items() if "\ndef run(" in text}


def table(rows: Rows) -> str:
    """The rows as text, a column for each of their keys."""
    keys = dict.fromkeys(key for row in rows for key in row)
    lines = [list(keys), *([_cell(row.get(key, "")) for key in keys] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def save(folder: Path, name: str, arguments: Sequence[str], rows: Rows) -> Path:
    """Write what was measured, where and when; returns the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    measured = {"benchmark": name, "arguments": list(arguments), "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    text = json.dumps({**measured, "machine": machine(), "rows": list(rows)}, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def main(arguments: Sequence[str]) -> int:
    """Run one benchmark; what follows its name is its own."""
    known = names()
    epilog = "\n".join(f"{name:12} {line}" for name, line in known.items())
    parser = argparse.ArgumentParser(
        "python -m bench", epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=list(known))
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="arguments of the benchmark itself")
    options = parser.parse_args(arguments)
    prepare_environment()  # as for the page, before torch is imported; peers have processes of their own
    rows: Rows = importlib.import_module(f"bench.{options.name}").run(options.rest)
    print(table(rows))
    print(save(FOLDER / "results", options.name, options.rest, rows))
    return 0


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
