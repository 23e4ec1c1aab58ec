"""training/runs/run_queue.py and training/runs/run.py: which state may follow which, and whose turn it is."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from errors import ConfigError, RunError
from store.database import Database
from tests.helpers.run_helpers import plain
from training.events import CONFIG, LOG, RESULT
from training.runs import run_queue
from training.runs.run import CAN, ENDS, MAY, NEXT, STATES, Run, State, read_result, read_state

ALLOWED = {
    ("queued", "running"), ("queued", "cancelled"), ("paused", "queued"), ("paused", "cancelled"),
    ("interrupted", "queued"), *(("running", state) for state in ENDS),
}  # fmt: skip


def add(database: Database, root: Path, id: str, state: State = "queued", queued: float = 0) -> Run:
    with database.write() as connection:
        connection.execute(
            "INSERT INTO runs (id, state, name, plugin, data, created, queued) VALUES (?, ?, 'n', 'p', 'd', 0, ?)",
            (id, state, queued),
        )
        return run_queue.row(connection, root, id)


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "graft.db")


@pytest.mark.parametrize(("state", "after"), [*itertools.product(STATES, STATES)])
def test_only_what_may_follow_follows(database: Database, tmp_path: Path, state: State, after: State) -> None:
    run = add(database, tmp_path, "a", state)
    if (state, after) in ALLOWED:
        with database.write() as connection:
            run_queue.move(connection, run, after)
    else:
        with pytest.raises(RunError, match=f"is {state}"), database.write() as connection:
            run_queue.move(connection, run, after)
    with database.read() as connection:
        assert run_queue.row(connection, tmp_path, "a").state == (after if (state, after) in ALLOWED else state)


def test_the_tables_name_every_state_and_nothing_follows_an_end() -> None:
    assert len(STATES) == 7 and set(NEXT) == set(STATES) and set(MAY) == set(CAN)
    assert NEXT["done"] == NEXT["failed"] == NEXT["cancelled"] == ()
    assert "running" not in MAY["delete"] and set(MAY["resume"]) == {s for s in STATES if "queued" in NEXT[s]}
    assert set(MAY["cancel"]) == {s for s in STATES if "cancelled" in NEXT[s]}


def test_the_one_that_waits_longest_is_next(database: Database, tmp_path: Path) -> None:
    for id, at in (("c", 1.0), ("a", 3.0), ("b", 2.0)):
        add(database, tmp_path, id, queued=at)
    with database.write() as connection:
        assert run_queue.next_id(connection) == "c"
        assert {run.id: run.place for run in run_queue.rows(connection, tmp_path)} == {"c": 1, "b": 2, "a": 3}
        run_queue.move(connection, run_queue.row(connection, tmp_path, "c"), "running")
        assert run_queue.next_id(connection) is None


@pytest.mark.parametrize(
    ("text", "state"),
    [('{"state": "done"}', "done"), ('{"state": "nonsense"}', "running"), ("[]", "running"), ("{", "running"),
     ('{"state": "running"}', "running"), (None, "running")],
)  # fmt: skip
def test_a_result_counts_when_it_is_whole(tmp_path: Path, text: str | None, state: str) -> None:
    if text is not None:
        (tmp_path / RESULT).write_text(text)
    assert read_state(tmp_path) == state
    assert bool(read_result(tmp_path)) is (state == "done")


def test_a_run_whose_folder_is_spoiled_says_so(database: Database, tmp_path: Path) -> None:
    run = add(database, tmp_path, "a")
    for text in (None, "{", "[]", "\udcff"):
        if text is not None:
            run.folder.mkdir(exist_ok=True)
            (run.folder / CONFIG).write_bytes(text.encode("utf-8", "surrogateescape"))
        with pytest.raises(ConfigError):
            assert run.config
    (run.folder / CONFIG).write_text(plain(tmp_path).to_json())
    assert run.config == plain(tmp_path)


def test_the_log_ends_with_its_last_lines(database: Database, tmp_path: Path) -> None:
    run = add(database, tmp_path, "a")
    assert run.log_tail() == []
    run.folder.mkdir()
    (run.folder / LOG).write_bytes(b"old\n" * 20_000 + b"10%\r20%\rlast \xff\n\n")
    assert run.log_tail(3) == ["10%", "20%", "last \ufffd"]
