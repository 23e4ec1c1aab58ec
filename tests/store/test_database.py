"""store/database.py: one file, many processes; tables come by migrations; a spoiled file says what to do."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from errors import GraftError
from settings import REPOSITORY
from store import database
from store.database import MIGRATIONS, Database

INSERT = "INSERT INTO runs (id, state, name, plugin, data, created, queued) VALUES (?, 'queued', 'n', 'p', 'd', 1, 1)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "graft.db"


def ids(path: Path) -> list[str]:
    with Database(path).read() as connection:
        return [row["id"] for row in connection.execute("SELECT id FROM runs ORDER BY id")]


def test_a_new_file_has_its_tables_and_its_journal(path: Path) -> None:
    assert ids(path) == []
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert plain.execute("PRAGMA user_version").fetchone() == (len(MIGRATIONS),)


def test_an_exception_undoes_everything(path: Path) -> None:
    with pytest.raises(KeyError), Database(path).write() as connection:
        connection.execute(INSERT, ("a",))
        raise KeyError
    assert ids(path) == []


def test_a_file_of_an_older_graft_gets_what_it_lacks_and_keeps_its_rows(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database(path).write() as connection:
        connection.execute(INSERT, ("old",))
    later = ("CREATE TABLE notes (text TEXT)", "INSERT INTO notes VALUES ('a; b')")
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, later))
    with Database(path).read() as connection:
        assert connection.execute("SELECT text FROM notes").fetchone()["text"] == "a; b"
    assert ids(path) == ["old"]


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids(path) == []
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE notes (text TEXT)", "nonsense")))
    with pytest.raises(GraftError, match="cannot be opened"), Database(path).read():
        pass
    monkeypatch.undo()
    assert ids(path) == []


def test_a_file_of_a_newer_graft_is_left_alone(path: Path) -> None:
    assert ids(path) == []
    with closing(sqlite3.connect(path)) as plain:
        plain.execute("PRAGMA user_version = 99")
    with pytest.raises(GraftError, match=r"newer Graft.*99.*Update"), Database(path).read():
        pass


@pytest.mark.parametrize("spoiled", ["header", "pages", "text"])
def test_a_damaged_file_says_what_to_do(path: Path, spoiled: str) -> None:
    with Database(path).write() as connection:
        for number in range(500):
            connection.execute(INSERT, (str(number),))
    whole = bytearray(path.read_bytes())
    if spoiled == "text":
        whole[:] = b"not a database\n" * 100
    else:
        start, end = (0, 100) if spoiled == "header" else (4096, len(whole))
        whole[start:end] = b"\xff" * (end - start)
    path.write_bytes(whole)
    with pytest.raises(GraftError) as caught:
        ids(path)
    assert "graft.db is damaged." in str(caught.value) and "Move it away" in str(caught.value)
    path.rename(path.with_name("away"))
    assert ids(path) == []


def test_a_place_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "graft.db", tmp_path / "folder"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        with pytest.raises(GraftError, match="cannot be opened") as caught, Database(path).read():
            pass
        assert str(tmp_path) not in str(caught.value)


def test_errors_of_the_caller_are_the_callers(path: Path) -> None:
    with pytest.raises(FileNotFoundError), Database(path).write():
        (path.parent / "nothing").read_text()


def test_r31_writers_in_threads_and_processes_take_turns(path: Path) -> None:
    code = f"""
from pathlib import Path
from store.database import Database
for _ in range(40):
    with Database(Path({str(path)!r})).write() as connection:
        n = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        connection.execute({INSERT!r}, (str(n),))
"""  # noqa: S608 - our own names
    others = [subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) for _ in range(2)]

    def write() -> None:
        for _ in range(40):
            with Database(path).write() as connection:
                n = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
                connection.execute(INSERT, (str(n),))

    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [child.wait() for child in others] == [0, 0]
    assert len(ids(path)) == 160, "nobody saw a count that another was changing"


def test_a_writer_that_is_killed_holds_nobody_up(path: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from store.database import Database
with Database(Path({str(path)!r})).write() as connection:
    connection.execute({INSERT!r}, ("half",))
    print("in", flush=True)
    sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", code], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None and child.stdout.readline() == "in\n"
        child.kill()
    with Database(path).write() as connection:
        connection.execute(INSERT, ("whole",))
    assert ids(path) == ["whole"]
