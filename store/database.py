"""`graft.db`: the one SQLite file of a home, for what is listed and chosen rather than read as files.

    with Database(home / "graft.db").write() as connection:     # BEGIN IMMEDIATE: one writer at a time
        connection.execute("UPDATE ...")

A connection lives for one operation, so no thread and no forked child ever holds another's. What is in here can be made
again from the folders of the home: losing the file loses no run and no version.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from errors import GraftError

DATABASE = "graft.db"
BUSY_S = 30.0
"""How long an operation waits for another process to end its own; each takes milliseconds."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE runs (
            id TEXT PRIMARY KEY,
            state TEXT NOT NULL
                CHECK (state IN ('queued', 'running', 'paused', 'done', 'failed', 'cancelled', 'interrupted')),
            name TEXT NOT NULL,
            plugin TEXT NOT NULL,
            data TEXT NOT NULL,
            created REAL NOT NULL,
            queued REAL NOT NULL,
            started REAL,
            ended REAL,
            seconds REAL NOT NULL DEFAULT 0,
            version TEXT,
            metric TEXT,
            figure REAL
        )
        """,
        "CREATE INDEX runs_by_state ON runs (state, queued)",
    ),
)
"""The statements that bring the schema from each `user_version` to the next. Only ever append: files have run these."""


class Database:
    """A file of tables; it comes into being, with its tables, when it is first opened."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection to look something up with. Raises `GraftError` for a file that cannot be read."""
        with self._connection() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction of its own, which nobody else writes beside; an exception undoes all of it."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._open()) as connection:
                yield connection
        except sqlite3.Error as error:
            raise self._explain(error) from error
        except OSError as error:
            # The folder that the file lies in; errors of the caller's own block are not about this file.
            if error.filename and Path(str(error.filename)) == self._path.parent:
                raise self._explain(error) from error
            raise

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != len(MIGRATIONS):
                connection.execute("PRAGMA journal_mode = WAL")
                self._migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Run the migrations that the file has not seen, all or none; processes that open it together take turns."""
        connection.execute("BEGIN IMMEDIATE")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > len(MIGRATIONS):
            what, why = (
                f"{self._path.name} was written by a newer Graft.",
                f"Its tables are those of version {version}.",
            )
            raise GraftError(what, why, "Update this Graft, or set GRAFT_HOME to another folder.")
        for migration in MIGRATIONS[version:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        connection.execute("COMMIT")

    def _explain(self, error: sqlite3.Error | OSError) -> GraftError:
        name, code = self._path.name, getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            what, after = (
                f"{name} is damaged.",
                "Move it away from GRAFT_HOME; it is made again from the folders there.",
            )
        elif code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            what, after = f"{name} cannot be written.", "Free some space on its disk and try again."
        elif code == sqlite3.SQLITE_BUSY:
            what, after = f"{name} is in use.", "Another process holds it; try again in a moment."
        else:
            what, after = f"{name} cannot be opened.", "See that the folder GRAFT_HOME can be read and written."
        # Without the path, which is nobody's business who reads this on a page.
        return GraftError(what, f"{getattr(error, 'strerror', None) or error}.", after)
