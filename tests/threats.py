"""Faults and attacks that Graft survives, and their tests: `python -m tests.threats` runs them, `--list` lists them.

A test belongs to a row by its name: `test_r11_...`, or `test_r11_r20_...` for two. Rows of band A keep anybody from
using Graft at all, those of band B from sharing it, those of band C from recommending it.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.compile(r"test_?((?:r\d\d_?)+)", re.IGNORECASE)


@dataclass(frozen=True)
class Row:
    """A fault or an attack."""

    band: str
    what: str


ROWS = {
    f"R{number:02}": Row(band, what)
    for number, (band, what) in enumerate(
        [
            ("A", "a base brings code of its own, or asks for a library that does"),
            ("A", "pickled weights, adapters or checkpoints"),
            ("A", "a web page drives the local app, by another host name or by blind requests"),
            ("A", "the card of a data set names files of this machine"),
            ("A", "a model's files name others outside its folder"),
            ("A", "the token leaks: to a child, a file, a log, a page, another host"),
            ("A", "the operator's identity is lent to a visitor"),
            ("A", "an endpoint that asks nobody who calls it"),
            ("A", "an open training page on a network"),
            ("A", "an answer of another version than the one it names"),
            ("A", "half a version or half a checkpoint is used"),
            ("A", "a run that crashes or eats the memory takes the server with it"),
            ("A", "values that are not finite are published or served"),
            ("A", "a version meets a base that it was not made for"),
            ("A", "an upload becomes code; a plugin that fails takes others with it"),
            ("A", "a name is a path"),
            ("A", "a text is evaluated"),
            ("B", "a run's processes outlive its end, or its server"),
            ("B", "a page that is closed, or a log that nobody reads, stops a run"),
            ("B", "the disk is full while something is written"),
            ("B", "a run that is resumed is another run"),
            ("B", "a small file that unpacks to a large one, or nests without end"),
            ("B", "a reader of files that can be broken by them"),
            ("B", "a text makes the server ask another machine"),
            ("B", "a chat template runs for ever, or reaches for objects"),
            ("B", "the queue hangs, or one kind of work starves another"),
            ("B", "uploads without limit"),
            ("B", "an adapter's configuration asks for too much, or is a trap"),
            ("B", "what a failed load leaves behind; memory that grows with swaps"),
            ("B", "markup in an answer, a row, a name"),
            ("B", "two processes, one home"),
            ("B", "what is sent or written out is sent or written by half"),
            ("B", "what is exported holds data, paths, or code made of names"),
            ("B", "an MCP endpoint that web pages reach"),
            ("B", "rows that nothing can be learned from"),
            ("B", "the text of a special token in a row"),
            ("B", "sessions that are never forgotten"),
            ("B", "a forked process shares threads or sockets with its parent"),
            ("B", "a login that can be guessed, forged or led elsewhere"),
            ("B", "the route of files gives more than it should"),
            ("C", "quantization that does not work here, found out late"),
            ("C", "a download that breaks off"),
            ("C", "a formula in an exported table"),
            ("C", "contact with the outside that nobody asked for"),
            ("C", "a weight file whose header is a trap"),
            ("C", "paths and secrets in the text of an error"),
            ("C", "a dependency with a published hole"),
            ("C", "a developer's switch left on"),
        ],
        1,
    )
}


def rows_of(name: str) -> list[str]:
    """Return the rows in the name of a test."""
    found = NAMED.match(name)
    return [part.upper() for part in re.findall(r"r\d\d", found[1], re.IGNORECASE)] if found else []


def claimed() -> dict[str, list[str]]:
    """Return the tests of each row, as pytest names them."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            names += [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
            for test in names:
                for row in rows_of(test):
                    found.setdefault(row, []).append(f"{path.relative_to(ROOT)}::{test}")
    return found


def main(arguments: list[str]) -> int:
    """Print the tests of each row; run them unless only the list is wanted."""
    found = claimed()
    for id, row in ROWS.items():
        print(f"{id} {row.band}  {row.what}")
        for test in found.get(id, ["(none)"]):
            print(f"       {test}")
    if "--list" in arguments:
        return 0
    return int(pytest.main(["-q", *sorted({test for tests in found.values() for test in tests})]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
