"""Corrections of answers, tab by tab: rows to learn from, in an append-only journal.

    home/corrections/<tab>.jsonl    one change a line: add, edit, delete, undo, taught

A change is on the disk before it is acknowledged; half a line that a crash left was never acknowledged, and is skipped.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from errors import DataError, GraftError
from store import files
from tasks import LONGEST_CELL

FOLDER = "corrections"
Row = Mapping[str, Any]
"""A row to train on: `{"text", "target"}`, or `{"messages"}` whose last message is the right answer."""


@dataclass(frozen=True)
class Correction:
    """One corrected row."""

    id: str
    at: float
    """Unix seconds of the correction."""
    row: Row
    answered: str
    """The answer that was wrong."""
    version: str
    """The version that gave it: name@7, or base."""
    taught: str = ""
    """The newest version that has learned the row as it is now."""

    @property
    def question(self) -> str:
        """The question, as one text."""
        if "messages" in self.row:
            return "\n".join(message["content"] for message in self.row["messages"][:-1])
        return str(self.row["text"])

    @property
    def target(self) -> str:
        """The right answer."""
        return str(self.row["messages"][-1]["content"] if "messages" in self.row else self.row["target"])


class _State:
    """The corrections after the lines of a journal, and the stack of undoable changes: (id, value before)."""

    def __init__(self) -> None:
        self.rows: dict[str, Correction] = {}
        self.undo_stack: list[tuple[str, Correction | None]] = []

    def apply(self, change: Mapping[str, Any]) -> None:
        """Apply one line; raises `KeyError`, `TypeError` or `IndexError` for one that is not valid here."""
        kind = change["kind"]
        if kind == "undo":
            self._put(*self.undo_stack.pop())
            return
        if kind == "taught":
            for id in self.rows.keys() & change["ids"]:
                self.rows[id] = replace(self.rows[id], taught=str(change["version"]))
            return
        id = str(change["id"])
        old, new = self.rows.get(id), None
        if kind == "add":
            new = Correction(id, **{name: change[name] for name in ("at", "row", "answered", "version")})
        elif kind == "edit":
            new = replace(self.rows[id], row=change["row"], taught="")
        elif kind != "delete" or old is None:
            raise KeyError(kind)
        self._put(id, new)
        self.undo_stack.append((id, old))

    def _put(self, id: str, correction: Correction | None) -> None:
        if correction:
            self.rows[id] = correction
        else:
            self.rows.pop(id, None)


class Corrections:
    """The corrections under one home; any number of processes may write."""

    def __init__(self, home: Path) -> None:
        self._root = home.absolute() / FOLDER
        self._states: dict[str, tuple[object, _State]] = {}
        self._threads = threading.Lock()

    def list(self, tab: str) -> list[Correction]:
        """Return a tab's corrections, newest first."""
        found = self._read(tab).rows.values()
        return sorted(found, key=lambda correction: (correction.at, correction.id), reverse=True)

    def get(self, tab: str, id: str) -> Correction:
        """Return the correction of that id; raises `DataError`."""
        return _one(self._read(tab), id)

    def undoable(self, tab: str) -> bool:
        """Return whether there is a change to undo."""
        return bool(self._read(tab).undo_stack)

    def mark(self, tab: str) -> object:
        """Return a value that differs after each change, without reading the journal; None where there is none."""
        try:
            stat = self._path(tab).stat()
        except FileNotFoundError:
            return None
        return stat.st_size, stat.st_mtime_ns, stat.st_ino

    def add(self, tab: str, row: Row, answered: str = "", version: str = "") -> Correction:
        """Keep a row; it replaces an earlier one with the same question. Raises `DataError`."""
        row = check(row)

        def change(state: _State) -> dict[str, Any]:
            now = Correction(secrets.token_hex(6), time.time(), row, _text(answered)[:LONGEST_CELL], version)
            same = next((old for old in state.rows.values() if old.question.strip() == now.question.strip()), None)
            return {"kind": "edit", "id": same.id, "row": row} if same else {"kind": "add", **vars(now)}

        return self.get(tab, self._append(tab, change)["id"])

    def edit(self, tab: str, id: str, target: str) -> Correction:
        """Give a correction another right answer; raises `DataError`."""

        def change(state: _State) -> dict[str, Any]:
            return {"kind": "edit", "id": id, "row": check(answered_row(_one(state, id).row, target))}

        self._append(tab, change)
        return self.get(tab, id)

    def delete(self, tab: str, id: str) -> None:
        """Remove a correction, which `undo` brings back; raises `DataError`."""
        self._append(tab, lambda state: {"kind": "delete", "id": _one(state, id).id})

    def undo(self, tab: str) -> None:
        """Undo the last change of any kind, then the one before; raises `DataError` if there is none."""

        def change(state: _State) -> dict[str, Any]:
            if not state.undo_stack:
                raise DataError("There is nothing to undo.", f"No correction of {tab} has been changed.")
            return {"kind": "undo"}

        self._append(tab, change)

    def mark_taught(self, tab: str, rows: Mapping[str, Row], version: str) -> None:
        """Note the version that has learned `rows`, by id; rows that were changed meanwhile are left out."""

        def change(state: _State) -> dict[str, Any]:
            ids = [id for id, row in rows.items() if id in state.rows and state.rows[id].row == row]
            return {"kind": "taught", "ids": ids, "version": version}

        self._append(tab, change)

    def _path(self, tab: str) -> Path:
        if not tab.isidentifier():
            raise DataError(f"{tab!r} is no tab.", "", "Name one that the page has.")
        return self._root / f"{tab}.jsonl"

    def _read(self, tab: str) -> _State:
        """Return the journal's state; the same object while nothing is written."""
        mark = self.mark(tab)
        with self._threads:
            known, state = self._states.get(tab, (None, _State()))
            if mark != known:
                state = _replay(self._path(tab))
                self._states[tab] = mark, state
            return state

    def _append(self, tab: str, change: Callable[[_State], dict[str, Any]]) -> dict[str, Any]:
        """Append the line that `change` makes of the current state, under the lock; returns it."""
        path = self._path(tab)
        try:
            with files.lock(self._root / ".lock"):
                new = not path.exists()
                line = {"at": time.time(), **change(_replay(path))}
                _write(path, json.dumps(line, ensure_ascii=False).encode() + b"\n")
                if new:
                    files.sync(self._root)
        except OSError as error:
            what, why = "The correction could not be kept.", f"{error.strerror or error}."
            raise GraftError(what, why, "Free some space in GRAFT_HOME, or see that it can be written.") from error
        return line


def answered_row(row: Row, target: str) -> dict[str, Any]:
    """Return a copy of `row` with another answer."""
    if "messages" in row:
        return {"messages": [*row["messages"][:-1], {"role": "assistant", "content": target}]}
    return {**row, "target": target}


def check(row: Row) -> Row:
    """Return `row` with its known parts alone; raises `DataError` for one that nothing could be learned from."""
    if "messages" in row:
        messages = [{"role": str(m["role"]), "content": _text(m["content"])} for m in row["messages"]]
        roles = [message["role"] for message in messages]
        if "user" not in roles or roles[-1] != "assistant":
            raise DataError("The conversation cannot be corrected.", "It must end with an answer to somebody.")
        kept: dict[str, Any] = {"messages": messages}
        texts = [message["content"] for message in messages]
    else:
        kept = {"text": _text(row.get("text")), "target": _text(row.get("target")).strip()}
        texts = list(kept.values())
    if not all(text.strip() for text in texts):
        raise DataError("There is no right answer.", "It is empty.", "Say what should have been answered.")
    if any(len(text) > LONGEST_CELL for text in texts):
        raise DataError("The text is too long to be learned.", f"The limit is {LONGEST_CELL:,} characters.")
    return kept


def _text(value: object) -> str:
    """Return a value as text that can be encoded; a lone surrogate becomes a question mark."""
    return str(value or "").encode("utf-8", "replace").decode()


def as_jsonl(found: Sequence[Correction], columns: Mapping[str, str]) -> str:
    """Return rows to train on, one JSON object a line, with the tab's column names (part of a row -> column)."""
    rows = ({columns.get(part) or part: value for part, value in one.row.items()} for one in found)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _one(state: _State, id: str) -> Correction:
    if id not in state.rows:
        raise DataError(f"There is no correction {id!r}.", "It may have been deleted.", "Look at the list again.")
    return state.rows[id]


def _replay(path: Path) -> _State:
    state = _State()
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for line in lines:
        try:
            state.apply(json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError):
            continue
    return state


def _write(path: Path, line: bytes) -> None:
    """Append a line whole, on the disk, or not at all."""
    with path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            # Half a line that a crash left is ended, and stays a line of its own.
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            if file.write(line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
