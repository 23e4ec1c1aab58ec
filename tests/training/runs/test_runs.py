"""training/runs/runs.py: queued and one at a time; paused, resumed and deleted; listed again from the folders alone."""

from __future__ import annotations

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

import training.runs.runs
from errors import GraftError, RunError
from settings import Settings
from store import files
from tests.helpers.run_helpers import STAND_IN, begun, plain, states
from tests.helpers.waiting import until
from training.events import CONFIG, LOG, PROCESS, read_events
from training.runs.runs import LOCK, Runs


def test_one_run_goes_on_and_the_others_wait_in_order(runs: Runs, home: Path) -> None:
    ids = [runs.submit(plain(home, name)).id for name in ("a", "b", "c")]
    assert states(runs) == {"a": "running", "b": "queued", "c": "queued"}
    assert [runs.get(id).place for id in ids] == [0, 1, 2]
    assert [run.id for run in runs.list()] == ids[::-1], "newest first"
    runs.cancel(ids[1])
    assert states(runs) == {"a": "running", "b": "cancelled", "c": "queued"}
    (runs.get(ids[0]).folder / "finish").touch()
    assert runs.wait(ids[0]).state == "done"
    runs.advance()
    assert states(runs) == {"a": "done", "b": "cancelled", "c": "running"}
    assert not (runs.get(ids[1]).folder / PROCESS).exists(), "it never had a process"


def test_a_large_file_is_linked_into_its_run_and_a_small_one_copied(
    runs: Runs, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("small", "large"):
        (home / f"{name}.csv").write_text("text,label\n")
    small = runs.submit(replace(plain(home, "small"), data=str(home / "small.csv")))
    monkeypatch.setattr(training.runs.runs, "LARGE", 3)
    large = runs.submit(replace(plain(home, "large"), data=str(home / "large.csv")))
    assert os.stat(small.config.data).st_nlink == 1 and os.stat(large.config.data).st_nlink > 1
    assert all(Path(run.config.data).is_relative_to(run.folder) for run in (small, large))


def test_r31_many_that_advance_at_once_start_one(runs: Runs, home: Path) -> None:
    for name in ("a", "b", "c"):
        runs.submit(plain(home, name))
    runs.cancel(runs.list()[-1].id)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: Runs(Settings(home=home), STAND_IN).advance(), range(6)))
    assert states(runs) == {"a": "cancelled", "b": "running", "c": "queued"}


def test_a_paused_run_resumes_from_its_checkpoint(runs: Runs, home: Path) -> None:
    run, other = begun(runs, home), runs.submit(plain(home, "other"))
    runs.pause(run.id)
    until(lambda: runs.get(run.id).state == "paused")
    paused = runs.get(run.id)
    step = paused.progress.step
    assert paused.resumable and paused.result["step"] == step and not paused.pausing
    assert not paused.may("pause") and paused.may("resume") and paused.may("delete")
    runs.advance()
    assert states(runs)["other"] == "running", "its turn passed on"
    runs.resume(run.id)
    again = runs.get(run.id)
    assert again.state == "queued" and again.place == 1 and again.result == {}
    with pytest.raises(RunError, match=r"is queued.*can be paused"):
        runs.pause(run.id)
    runs.cancel(other.id)
    until(lambda: runs.get(run.id).progress.step > step)
    assert runs.get(run.id).state == "running" and runs.get(run.id).duration > paused.duration
    (run.folder / "finish").touch()
    ended = runs.wait(run.id)
    assert (ended.state, ended.figure, ended.version) == ("done", 0.75, "plain@1")
    steps = [event["step"] for event in read_events(run.folder) if event["kind"] == "step"]
    assert steps == list(range(1, len(steps) + 1)), "in one file, from the step after the checkpoint"


def test_r19_a_run_that_prints_without_a_reader_goes_on(runs: Runs, home: Path) -> None:
    run = begun(runs, home, "chatty")
    assert (run.folder / LOG).stat().st_size > 10 * 2**20 and len("".join(run.log_tail())) <= 20_000


def test_folders_that_are_no_runs_are_left_out(runs: Runs, home: Path) -> None:
    run = begun(runs, home)
    for name, text in {"c-empty": None, "d-half": '{"name": "x', "e-list": "[]", "f-old": '{"name": "x"}'}.items():
        (home / "runs" / name).mkdir()
        if text is not None:
            (home / "runs" / name / CONFIG).write_text(text)
    (home / "runs" / "stray.txt").write_text("")
    assert [found.id for found in runs.list()] == [run.id]
    for id in ("../adapters", "", "d-half"):
        with pytest.raises(RunError, match="There is no run"):
            runs.get(id)


def test_a_run_that_was_deleted_is_no_longer_listed_and_a_running_one_cannot_be(runs: Runs, home: Path) -> None:
    run, second = begun(runs, home), runs.submit(plain(home, "b"))
    shutil.rmtree(second.folder)
    assert [found.id for found in runs.list()] == [run.id], "removed by hand"
    with pytest.raises(RunError, match=r"is running.*can be deleted"):
        runs.delete(run.id)
    runs.cancel(run.id)
    runs.delete(run.id)
    assert runs.list() == [] and list((home / "runs").iterdir()) == []
    with pytest.raises(RunError, match="There is no run"):
        runs.delete(run.id)


def test_r31_a_suspended_process_that_holds_the_lock_is_an_error(
    runs: Runs, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.runs.runs.LOCK_PATIENCE_S", 0.1)
    with files.lock(home / LOCK), pytest.raises(RunError, match=r"runs\.lock has been held.*suspended"):
        runs.list()
    with files.lock(home / LOCK), pytest.raises(RunError, match="suspended"):
        runs.submit(plain(home))
    assert runs.list() == [], "and nothing was queued"


def test_r20_a_submission_that_cannot_be_written_leaves_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_bytes(b"x" * 10_000)
    with pytest.raises(RunError, match="could not be queued"):
        Runs(Settings(home=home / "file")).submit(plain(home))
    with pytest.raises(GraftError, match=r"cannot be queued.*GRAFT_DISK_GB"):
        Runs(Settings(home=home, disk_bytes=5_000), STAND_IN).submit(plain(home))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    runs = Runs(Settings(home=home), STAND_IN)
    monkeypatch.setattr(files, "seal", full)
    with pytest.raises(RunError, match="No space left"):
        runs.submit(plain(home, "half"))
    assert list((home / "runs").iterdir()) == [] and runs.list() == []


def test_a_server_advances_the_queue_and_outlives_trouble(
    runs: Runs, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = begun(runs, home, "first"), runs.submit(plain(home, "second"))
    stop = threading.Event()
    thread = threading.Thread(target=runs.attend, args=(stop, 0.01))
    thread.start()
    try:
        (home / LOCK).unlink()
        (home / LOCK).mkdir()
        until(lambda: "cannot be looked after. Is a directory." in caplog.text)
        (home / LOCK).rmdir()
        (first.folder / "finish").touch()
        until(lambda: second.progress.step)
    finally:
        stop.set()
        thread.join()
    assert states(runs) == {"first": "done", "second": "running"}
    assert caplog.text.count("held up") <= 3, "logged once, not each time"
