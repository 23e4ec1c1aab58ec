"""What people have corrected, tab by tab: rows to learn from, in a journal that is only ever appended to.

    home/corrections/<tab>.jsonl    one change a line: add, edit, delete, undo, taught

The journal is all there is: nothing is made from it that could be lost without it, or disagree with it. A change is on
the disk before it is acknowledged. Half a line that a crash has left was never acknowledged, and is passed over.
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
"""`{"text", "target"}`, or `{"messages"}` whose last one is the right answer: as a row to train on."""


@dataclass(frozen=True)
class Correction:
    """One row that somebody has put right."""

    id: str
    at: float
    """When it was given, in Unix seconds."""
    row: Row
    answered: str
    """What was answered instead."""
    version: str
    """What had answered: name@7, or base."""
    taught: str = ""
    """The newest version that has learned the row as it is now."""

    @property
    def asked(self) -> str:
        """What was asked, as one text."""
        if "messages" in self.row:
            return "\n".join(message["content"] for message in self.row["messages"][:-1])
        return str(self.row["text"])

    @property
    def target(self) -> str:
        """The right answer."""
        return str(self.row["messages"][-1]["content"] if "messages" in self.row else self.row["target"])


class _State:
    """What the lines of a journal come to."""

    def __init__(self) -> None:
        self.rows: dict[str, Correction] = {}
        self._before: list[tuple[str, Correction | None]] = []

    @property
    def undoable(self) -> bool:
        return bool(self._before)

    def take(self, change: Mapping[str, Any]) -> None:
        """Follow one line; raises `KeyError` or `TypeError` for one that makes no sense here."""
        kind = change["kind"]
        if kind == "undo":
            self._undo()
        elif kind == "taught":
            for id in change["ids"]:
                if id in self.rows:
                    self.rows[id] = replace(self.rows[id], taught=str(change["version"]))
        else:
            self._change(kind, str(change["id"]), change)

    def _change(self, kind: str, id: str, change: Mapping[str, Any]) -> None:
        old = self.rows.get(id)
        if kind == "add":
            facts = {name: change[name] for name in ("at", "row", "answered", "version")}
            self.rows[id] = Correction(id, **facts)
        elif kind == "edit" and old:
            self.rows[id] = replace(old, row=change["row"], taught="")
        elif kind == "delete" and old:
            del self.rows[id]
        else:
            raise KeyError(id)
        self._before.append((id, old))

    def _undo(self) -> None:
        id, before = self._before.pop()
        if before:
            self.rows[id] = before
        else:
            self.rows.pop(id, None)


class Corrections:
    """The corrections under one home; any number of processes may write."""

    def __init__(self, home: Path) -> None:
        self._root = home.absolute() / FOLDER
        self._kept: dict[str, tuple[object, _State]] = {}
        self._threads = threading.Lock()

    def list(self, tab: str) -> list[Correction]:
        """A tab's corrections, newest first."""
        found = self._read(tab).rows.values()
        return sorted(found, key=lambda correction: (correction.at, correction.id), reverse=True)

    def get(self, tab: str, id: str) -> Correction:
        """The correction of that id; raises `DataError`."""
        return _one(self._read(tab), id)

    def undoable(self, tab: str) -> bool:
        """Whether there is a change to undo."""
        return self._read(tab).undoable

    def mark(self, tab: str) -> object:
        """Another value after each change; cheap."""
        try:
            found = self._path(tab).stat()
        except FileNotFoundError:
            return None
        return found.st_size, found.st_mtime_ns, found.st_ino

    def add(self, tab: str, row: Row, answered: str = "", version: str = "") -> Correction:
        """Keep a row; one that asks the same as an earlier one takes its place. Raises `DataError`."""
        row = check(row)

        def change(state: _State) -> dict[str, Any]:
            now = Correction(secrets.token_hex(6), time.time(), row, _text(answered)[:LONGEST_CELL], version)
            same = next((old for old in state.rows.values() if old.asked.strip() == now.asked.strip()), None)
            return {"kind": "edit", "id": same.id, "row": row} if same else {"kind": "add", **vars(now)}

        done = self._append(tab, change)
        return self.get(tab, done["id"])

    def edit(self, tab: str, id: str, target: str) -> Correction:
        """Give a correction another right answer; raises `DataError`."""

        def change(state: _State) -> dict[str, Any]:
            return {"kind": "edit", "id": id, "row": check(answered_row(_one(state, id).row, target))}

        self._append(tab, change)
        return self.get(tab, id)

    def delete(self, tab: str, id: str) -> None:
        """Take a correction out; raises `DataError`. `undo` brings it back."""
        self._append(tab, lambda state: {"kind": "delete", "id": _one(state, id).id})

    def undo(self, tab: str) -> None:
        """Take back the last change, whichever it was, then the one before; raises `DataError` where there is none."""

        def change(state: _State) -> dict[str, Any]:
            if not state.undoable:
                raise DataError("There is nothing to undo.", f"No correction of {tab} has been changed.")
            return {"kind": "undo"}

        self._append(tab, change)

    def taught(self, tab: str, rows: Mapping[str, Row], version: str) -> None:
        """Note which version has learned these rows, by id; one that was changed meanwhile is left as it is."""

        def change(state: _State) -> dict[str, Any]:
            ids = [id for id, row in rows.items() if id in state.rows and state.rows[id].row == row]
            return {"kind": "taught", "ids": ids, "version": version}

        self._append(tab, change)

    def _path(self, tab: str) -> Path:
        if not tab.isidentifier():
            raise DataError(f"{tab!r} is no tab.", "", "Name one that the page has.")
        return self._root / f"{tab}.jsonl"

    def _read(self, tab: str) -> _State:
        """What the journal says now; the same object while nothing is written."""
        mark = self.mark(tab)
        with self._threads:
            known, state = self._kept.get(tab, (None, _State()))
            if mark != known:
                state = _replay(self._path(tab))
                self._kept[tab] = mark, state
            return state

    def _append(self, tab: str, change: Callable[[_State], dict[str, Any]]) -> dict[str, Any]:
        """Write the line that `change` makes of the journal as it is, while nobody else writes one."""
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
    """A row with another answer."""
    if "messages" in row:
        return {"messages": [*row["messages"][:-1], {"role": "assistant", "content": target}]}
    return {**row, "target": target}


def check(row: Row) -> Row:
    """`row` as it is kept; raises `DataError` for one that nothing could be learned from."""
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
    """A value as text that can be written; half of a surrogate pair becomes a question mark."""
    return str(value or "").encode("utf-8", "replace").decode()


def as_jsonl(found: Sequence[Correction], columns: Mapping[str, str]) -> str:
    """Rows to train on, one JSON object a line, under a tab's own names (part of a row -> column)."""
    rows = ({columns.get(part) or part: value for part, value in one.row.items()} for one in found)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _one(state: _State, id: str) -> Correction:
    if id not in state.rows:
        raise DataError(f"There is no correction {id!r}.", "It may have been deleted.", "Look at the list again.")
    return state.rows[id]


def _replay(path: Path) -> _State:
    state = _State()
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return state
    for line in lines:
        try:
            state.take(json.loads(line))
        except (ValueError, KeyError, TypeError, IndexError):
            continue
    return state


def _write(path: Path, line: bytes) -> None:
    """Append a line whole, on the disk, or not at all."""
    with path.open("ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            # What a crash has cut short ends here, and stays a line of its own.
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            if file.write(line) != len(line):
                raise OSError(28, "No space left on device")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise
