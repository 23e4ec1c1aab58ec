"""The table of runs: who is listed, who waits, and that nobody leaves the states that may follow each other.

Every function works on a connection in a transaction of the caller's, so that looking and changing are one thing.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from errors import GraftError, RunError
from store import files
from training.data.files.formats import title
from training.events import CANCEL, CONFIG, EVENTS, LOG, PAUSE, QUEUED, RESULT
from training.runs import run_process
from training.runs.run import NEXT, Run, State, read_config, read_result, read_state

STOPPED = "The training stopped before it was done; nothing was published."
SHORT_OF_MEMORY = "If memory was short, use a smaller batch, a shorter longest length or a smaller base."


def rows(connection: sqlite3.Connection, root: Path) -> list[Run]:
    """Every run, newest first."""
    found = connection.execute("SELECT * FROM runs ORDER BY created DESC, id DESC").fetchall()
    places = {id: place for place, id in enumerate(_waiting(connection), 1)}
    return [Run.of_row(row, root, places.get(row["id"], 0)) for row in found]


def row(connection: sqlite3.Connection, root: Path, id: str) -> Run:
    """The run of that id; raises `RunError`."""
    # What is no text, half of a surrogate pair, cannot be asked for; ids are ours, and plain.
    found = connection.execute("SELECT * FROM runs WHERE id = ?", (id,)).fetchone() if id.isascii() else None
    if found:
        waiting = _waiting(connection)
        return Run.of_row(found, root, waiting.index(id) + 1 if id in waiting else 0)
    raise RunError(f"There is no run {id!r}.", "", "Choose one from the list.")


def next_id(connection: sqlite3.Connection) -> str | None:
    """Whose turn it is: the one that waits longest, unless one is running."""
    running = connection.execute("SELECT 1 FROM runs WHERE state = 'running'").fetchone()
    return None if running else next(iter(_waiting(connection)), None)


def move(connection: sqlite3.Connection, run: Run, state: State, **values: Any) -> None:  # noqa: ANN401 - columns
    """Put a run into another state; raises `RunError` for one that may not follow."""
    if state not in NEXT[run.state]:
        raise RunError(f"The run {run.id} is {run.state}.", f"It cannot become {state}.")
    values["state"] = state
    places = ", ".join(f"{column} = :{column}" for column in values)
    connection.execute(f"UPDATE runs SET {places} WHERE id = :id", {**values, "id": run.id})  # noqa: S608 - our names


def settle(connection: sqlite3.Connection, root: Path) -> None:
    """Bring the table to what the folders and the processes say."""
    run_process.reap()
    _adopt(connection, root)
    for found in connection.execute("SELECT * FROM runs WHERE state = 'running'").fetchall():
        _observe(connection, Run.of_row(found, root))


def enqueue(connection: sqlite3.Connection, run: Run) -> None:
    """Let a paused or interrupted run wait for its turn again."""
    now = time.time()
    (run.folder / QUEUED).write_text(str(now), encoding="utf-8")
    for name in (PAUSE, RESULT):
        (run.folder / name).unlink(missing_ok=True)
    move(connection, run, "queued", queued=now)


def finish(connection: sqlite3.Connection, run: Run, state: State, result: dict[str, Any]) -> None:
    """Note how a run ended, in its row, and in its folder where its process has not done so."""
    ended = _ended(run.folder)
    if read_result(run.folder) != result:
        # A full disk must not keep the queue from going on; the row says it too.
        with suppress(OSError):
            files.write_json(run.folder / RESULT, result)
    (run.folder / QUEUED).unlink(missing_ok=True)
    values: dict[str, Any] = {"ended": ended, **_figures(result)}
    if state in ("paused", "interrupted") and run.started is not None:
        # What it ran for until now stays counted when it goes on.
        values |= {"started": None, "seconds": run.seconds + max(0.0, ended - run.started)}
    move(connection, run, state, **values)


def _waiting(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute("SELECT id FROM runs WHERE state = 'queued' ORDER BY queued, id").fetchall()
    return [row["id"] for row in found]


def _adopt(connection: sqlite3.Connection, root: Path) -> None:
    """Give each folder of a run a row, and drop rows whose folder is gone."""
    known = {row["id"] for row in connection.execute("SELECT id FROM runs")}
    there = {path.name for path in root.glob("[!.]*") if (path / CONFIG).is_file()}
    connection.executemany("DELETE FROM runs WHERE id = ?", [(id,) for id in known - there])
    for id in sorted(there - known):
        with suppress(GraftError):
            _insert(connection, root / id)


def _insert(connection: sqlite3.Connection, folder: Path) -> None:
    config, state = read_config(folder), read_state(folder)
    created = (folder / CONFIG).stat().st_mtime
    waits = state in ("queued", "paused", "interrupted")
    values = {
        "id": folder.name,
        "state": state,
        "name": config.name,
        "plugin": config.plugin,
        "data": title(Path(config.data or config.corrections)),
        "created": created,
        "queued": _queued(folder) or created,
        "started": None if waits else created,
        "ended": None if state in ("queued", "running") else _ended(folder),
        "seconds": _ended(folder) - created if waits else 0,
        **_figures(read_result(folder)),
    }
    places = ", ".join(f":{column}" for column in values)
    connection.execute(f"INSERT INTO runs ({', '.join(values)}) VALUES ({places})", values)  # noqa: S608 - our names


def _observe(connection: sqlite3.Connection, run: Run) -> None:
    """Look whether a running run still is."""
    # Life first, then the result: a run may end, and leave one, between the two.
    alive, result = run_process.alive(run.folder), read_result(run.folder)
    cancelled = (run.folder / CANCEL).exists()
    if alive and not result:
        if cancelled:
            _enforce(run)
        return
    if not result:
        run_process.sweep(run.folder)
        result = interruption(run, run_process.death(run.folder))
    if cancelled and result["state"] != "done":
        result = {"state": "cancelled"}  # a process that was told to end may call that a failure
    finish(connection, run, result["state"], result)


def _enforce(run: Run) -> None:
    """End a run that was told to end long ago, by somebody who has not lived to see it."""
    with suppress(FileNotFoundError):
        if time.time() - (run.folder / CANCEL).stat().st_mtime > 2 * run_process.GRACE_S:
            run_process.end(run.folder, grace_s=0)


def interruption(run: Run, why: str) -> dict[str, Any]:
    """What the result of a run says that stopped for a reason outside of it."""
    after = "Resume it: it goes on from its last checkpoint." if run.resumable else "Resume it: it begins anew."
    return {"state": "interrupted", "what": STOPPED, "why": why, "next": f"{after} {SHORT_OF_MEMORY}"}


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    """The main figure of a run's card."""
    card = result.get("card") or {}
    metric = card.get("metric")
    return {"version": result.get("version"), "metric": metric, "figure": (card.get("new") or {}).get(metric)}


def _queued(folder: Path) -> float | None:
    try:
        return float((folder / QUEUED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _ended(folder: Path) -> float:
    """When a run ended, as near as its folder knows: its process may have been gone for long before anybody looked."""
    paths = (folder / name for name in (CONFIG, EVENTS, LOG, RESULT))
    return max((path.stat().st_mtime for path in paths if path.exists()), default=time.time())
