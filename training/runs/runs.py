"""Runs, as the page and the command line see them: queued, one at a time, known by their folders.

    home/runs/<id>/   config.json  data/  corrections/  events.jsonl  train.log  process.json  result.json  checkpoints/

The table in `graft.db` is what is listed and chosen from; it is made again from the folders where it is lost. Whoever
looks brings it up to date and starts whose turn it is, so it does not matter which process that is, or whether it was
there when the run began. No torch is imported here.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import DataError, GraftError, RunError
from settings import HOME_RECORD, Settings, check_release
from store import files, quota
from store.database import DATABASE, Database
from tasks import TabSpec
from training.config import TrainConfig
from training.data.files.selection import is_selection, read_selection
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER, Report
from training.data.rows import UnknownColumns
from training.estimate import estimate, fit, machine
from training.estimate.estimate import Case
from training.events import CANCEL, CONFIG, CORRECTIONS, PAUSE, QUEUED, RESULT
from training.loop import tracking
from training.runs import run_process, run_queue
from training.runs.run import Run

log = logging.getLogger("graft")

COMMAND = (sys.executable, "-m", "training.runs.child")
"""What runs a run; the folder comes behind it."""
LARGE = 64_000_000
"""Bytes of a file that is not copied into a run's folder. What a run learned from is bound by its hash."""
REMEMBERED = 8
"""Reports that are kept, because what follows an inspection asks for the same again."""
EVERY_S = 1.0
"""How often a server looks after the queue."""


def new_id() -> str:
    """A name for a run that nobody has; names sort by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"


class Runs:
    """The runs under one home."""

    def __init__(self, settings: Settings, command: Sequence[str] = COMMAND) -> None:
        """`command` is what a run's process is, for tests."""
        self._settings, self._home, self._command = settings, settings.home.absolute(), tuple(command)
        self._root = self._home / "runs"
        self._database = Database(self._home / DATABASE)
        self._reports: dict[tuple[object, int], Report] = {}

    def submit(self, config: TrainConfig, id: str | None = None) -> Run:
        """Queue a run, and start it if nothing else runs; returns at once. Raises `GraftError`.

        One that cannot fit in memory or on the disk is refused, with advice, unless its configuration says anyway.
        """
        tracking.require(config.track)
        quota.check(self._settings, "The training cannot be queued.")
        if (case := self.case(config)) is not None:
            fit.check(case)
        folder = self._root / (id or new_id())
        try:
            files.write_json(self._home / HOME_RECORD, check_release(self._home))
            staging = files.new_staging(self._root)
            try:
                config = _with_own_data(config, staging, folder)
                (staging / CONFIG).write_text(config.to_json(), encoding="utf-8")
                (staging / QUEUED).write_text(str(time.time()), encoding="utf-8")
                files.seal(staging, folder)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
        except OSError as error:
            why = f"{error.strerror or error}."
            raise RunError("The training could not be queued.", why, "Free some space or memory.") from error
        self.advance()
        return self.get(folder.name)

    def advance(self) -> None:
        """Note what has ended, and start whose turn it is. Any process may call this at any time."""
        child = None
        try:
            with self._database.write() as connection:
                run_queue.settle(connection, self._root)
                id = run_queue.next_id(connection)
                if id is None:
                    return
                run = run_queue.row(connection, self._root, id)
                run_queue.move(connection, run, "running", started=time.time(), ended=None)
                try:
                    child = self._spawn(run.folder)
                except OSError as error:
                    run = run_queue.row(connection, self._root, id)
                    why = f"Its process could not be started: {error.strerror or error}."
                    run_queue.finish(connection, run, "interrupted", run_queue.interruption(run, why))
        except BaseException:
            if child:
                child.abandon()
            raise
        if child:
            child.go()

    def attend(self, stop: threading.Event | None = None, every_s: float = EVERY_S) -> None:
        """Look after the queue until `stop`, or for ever; for a thread of a server's."""
        said, stop = "", stop or threading.Event()
        while not stop.wait(every_s):
            try:
                self.advance()
                said = ""
            except Exception as error:
                # A full disk or a damaged file may be mended while the server goes on.
                if str(error) != said:
                    log.warning("The queue of runs is held up. %s", error, exc_info=not isinstance(error, GraftError))
                said = str(error)

    def list(self) -> list[Run]:
        """Every run, newest first."""
        with self._database.write() as connection:
            run_queue.settle(connection, self._root)
            return run_queue.rows(connection, self._root)

    def get(self, id: str) -> Run:
        """The run of that id; raises `RunError`."""
        with self._database.write() as connection:
            run_queue.settle(connection, self._root)
            return run_queue.row(connection, self._root, id)

    def wait(self, id: str, every_s: float = 0.5) -> Run:
        """The run of that id when nothing more happens to it by itself; meanwhile the queue goes on."""
        while (run := self.get(id)).active:
            self.advance()
            time.sleep(every_s)
        return run

    def pause(self, id: str) -> None:
        """Ask a running run to stop at its next step, with a checkpoint. Raises `RunError`."""
        run = self.get(id)
        run.require("pause")
        (run.folder / PAUSE).touch()

    def resume(self, id: str) -> None:
        """Queue a paused or interrupted run again. Raises `RunError`."""
        with self._database.write() as connection:
            run_queue.settle(connection, self._root)
            run = run_queue.row(connection, self._root, id)
            run.require("resume")
            run_queue.enqueue(connection, run)
        self.advance()

    def cancel(self, id: str) -> None:
        """End a run and everything it started; nothing is published. One that has ended stays what it is."""
        with self._database.write() as connection:
            run_queue.settle(connection, self._root)
            run = run_queue.row(connection, self._root, id)
            if run.state in ("queued", "paused"):
                run_queue.finish(connection, run, "cancelled", {"state": "cancelled"})
        if run.state == "running":
            (run.folder / CANCEL).touch()
            run_process.end(run.folder)
        self.advance()

    def delete(self, id: str) -> None:
        """Remove a run that is not running, its folder with it; versions that it published stay. Raises `RunError`."""
        with self._database.write() as connection:
            run_queue.settle(connection, self._root)
            run = run_queue.row(connection, self._root, id)
            run.require("delete")
            connection.execute("DELETE FROM runs WHERE id = ?", (id,))
            away = self._root / f"{files.STAGING_PREFIX}{secrets.token_hex(16)}"
            run.folder.rename(away)
        shutil.rmtree(away, ignore_errors=True)
        self.advance()

    def case(self, config: TrainConfig) -> Case | None:
        """What can be known of a run before it begins; None where its base is not on this disk or not understood.

        The rows are those of the report, read anew where nobody has asked for it yet.
        """
        if estimate.shape(config, self._home) is None:
            return None
        report = self._report(config) if Path(config.data).is_file() else None
        lengths, labels = fit.lengths_of(config, report)
        running = [run.folder for run in self.list() if run.state == "running"]
        return estimate.case(config, self._home, lengths, labels, machine.measure(self._home, running))

    def _report(self, config: TrainConfig) -> Report | None:
        """The report on the rows of a run; None where they cannot be read, as the run itself will say.

        One that is known will do, however long rows were allowed to be in it. Raises `UnknownColumns`: what to learn
        has to be chosen, and no run can do that.
        """
        spec = TabSpec(config.plugin, config.model, config.task, config.wanted, config.prompt)
        inspection = Inspection(Path(config.data), spec, config.mapping, config.max_length)
        rows = inspection.key()[0]
        known = next((report for (of, _), report in self._reports.items() if of == rows), None)
        if known is None:
            try:
                *_, known = self.look(inspection)
            except UnknownColumns:
                raise
            except DataError:
                known = None
        return known

    def inspect(
        self, path: Path, spec: TabSpec, mapping: Mapping[str, str] | None = None, max_length: int = 512
    ) -> Report:
        """All that is known of a file of rows, read by a child process with little memory. Raises `DataError`."""
        *_, report = self.look(Inspection(path, spec, dict(mapping or {}), max_length))
        return report

    def look(self, inspection: Inspection) -> Iterator[Report]:
        """The report, each time that more of it is known; at once where it was asked for lately. Raises `DataError`."""
        if (key := inspection.key()) in self._reports:
            yield self._reports[key]
            return
        report = None
        for report in inspection.reports(self._home):
            yield report
        # What waits for the base is asked again; what was guessed is asked for as chosen next.
        if report and report.untokenized != LATER:
            chosen = replace(inspection, mapping=report.mapping)
            plain = replace(chosen, held_out=None)
            kept = [*self._reports.items()][-REMEMBERED:]
            self._reports = {**dict(kept), **dict.fromkeys((key, chosen.key(), plain.key()), report)}

    def write_bad_rows(self, inspection: Inspection, out: Path) -> int:
        """Write every row that is left out as JSONL; how many. Raises `DataError`."""
        return inspection.write_bad_rows(self._home, out)

    def _spawn(self, folder: Path) -> run_process.Child:
        """A process for the run that waits for the word; what belongs to an earlier stretch of the run is gone."""
        for name in (PAUSE, RESULT, CANCEL):
            (folder / name).unlink(missing_ok=True)
        child = run_process.Child(self._command, folder, self._home)
        (folder / QUEUED).unlink(missing_ok=True)
        return child


def _with_own_data(config: TrainConfig, staging: Path, folder: Path) -> TrainConfig:
    """The configuration with files of its own, because uploads go when the server stops.

    The copies are written into `staging`, and named as they will be found when that has become `folder`.
    """
    if config.hub and not config.data:
        raise DataError(f"The rows of {config.hub['id']} are not on this computer yet.", "", "Fetch them first.")
    if config.held_out_split and not config.held_out_data:
        what = f"The split {config.held_out_split} of {config.hub['id']} is not on this computer yet."
        raise DataError(what, "", "Fetch it first.")
    copies: dict[str, Any] = {}
    for field, place in (("data", "data"), ("held_out_data", "held_out"), ("corrections", CORRECTIONS)):
        source = Path(getattr(config, field))
        if getattr(config, field) and source.is_file():
            (staging / place).mkdir()
            if is_selection(source):
                _keep_parts(source, staging / place)
            if is_selection(source) or _keep(source, staging / place / source.name):
                copies[field] = str(folder / place / source.name)
    return replace(config, **copies)


def _keep_parts(source: Path, folder: Path) -> None:
    """Make the files of a selection last, as `_keep` does, and write down where they are now."""
    chosen = read_selection(source)
    names = [f"{i:05d}-{path.name}" for i, path in enumerate(chosen.paths(source))]
    paths = [path.resolve() for path in chosen.paths(source)]
    kept = [name if _keep(path, folder / name) else str(path) for path, name in zip(paths, names, strict=True)]
    replace(chosen, files=tuple(kept)).write(folder / source.name)


def _keep(source: Path, copy: Path) -> bool:
    """Make a file last as long as its run; a large one by a hard link, or not at all where it lies on another disk."""
    if source.stat().st_size <= LARGE:
        shutil.copyfile(source, copy)
        return True
    try:
        os.link(source, copy)
    except OSError:
        return False
    return True
