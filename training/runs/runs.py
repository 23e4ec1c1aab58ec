"""The runs of a home: queued, started one at a time, paused, resumed, cancelled and deleted.

    home/runs/<id>/   config.json  data/  corrections/  events.jsonl  train.log  process.json  result.json  checkpoints/
                      and, as long as they apply, `queued`, `pause` and `cancel`

The folders are the only state. Any process that lists runs reads them under the lock `runs.lock`, records which have
ended, and can start the next one; it need not be the process that queued or started a run. No torch is imported here.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from errors import DataError, GraftError, RunError
from settings import HOME_RECORD, Settings, check_release
from store import files, quota
from tasks import TabSpec
from training.config import TrainConfig, require_trackers
from training.data.files.formats import is_selection, read_selection
from training.data.inspect.inspect_client import Inspection
from training.data.inspect.report import LATER, Report
from training.data.rows import UnknownColumns
from training.estimate import advice, machine
from training.estimate.base_shapes import find_shape
from training.estimate.estimate import plan_run
from training.estimate.lengths import lengths_of
from training.estimate.training_memory import RunPlan
from training.events import CANCEL, CONFIG, CORRECTIONS, PAUSE, QUEUED, RESULT
from training.runs import run_process
from training.runs.run import Run, read_result, read_run

log = logging.getLogger("graft")

COMMAND = (sys.executable, "-m", "training.runs.child")
"""Command of a run's process, without its last argument, the folder."""
LOCK = "runs.lock"
LOCK_PATIENCE_S = 30.0
"""Seconds to wait for the lock, which is usually held for milliseconds."""
LARGE = 64_000_000
"""Bytes from which a file is linked into a run's folder, not copied; its hash is in the manifest either way."""
KEPT_REPORTS = 8
EVERY_S = 1.0
"""Seconds between two checks of the queue by a server."""
SETTLED_S = 2.0
"""Age in seconds from which a folder's modification time is sure to differ after the next change."""
STOPPED = "The training stopped before it was done; nothing was published."
SHORT_OF_MEMORY = "If memory was short, use a smaller batch, a shorter longest length or a smaller base."


def new_id() -> str:
    """Return a unique id for a run; ids sort by time."""
    now = time.time()
    return f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}-{int(now % 1 * 10**6):05x}{secrets.token_hex(2)}"


class Runs:
    """The runs under one home."""

    def __init__(self, settings: Settings, command: Sequence[str] = COMMAND) -> None:
        """`command` replaces the process of a run, for tests."""
        self._settings, self._home, self._command = settings, settings.home.absolute(), tuple(command)
        self._root = self._home / "runs"
        self._reports: dict[tuple[object, int], Report] = {}
        self._known: dict[Path, tuple[int, Run | None]] = {}
        """Runs whose folders have not changed since they were read, with their modification times in nanoseconds."""

    def submit(self, config: TrainConfig, id: str | None = None) -> Run:
        """Queue a run, and start it if no other is running; returns at once. Raises `GraftError`.

        A run that does not fit in memory or on the disk is refused, with advice, unless `config.anyway` is set.
        """
        require_trackers(config.track)
        quota.check(self._settings, "The training cannot be queued.")
        if (plan := self.plan(config)) is not None:
            advice.check(plan)
        folder = self._root / (id or new_id())
        try:
            with files.staging(self._root) as staging:
                files.write_json(self._home / HOME_RECORD, check_release(self._home))
                config = _with_own_data(config, staging, folder)
                (staging / CONFIG).write_text(config.to_json(), encoding="utf-8")
                (staging / QUEUED).write_text(str(time.time()), encoding="utf-8")
                with self._locked():  # an error here comes before the run is queued
                    files.seal(staging, folder)
        except OSError as error:
            why = f"{error.strerror or error}."
            raise RunError("The training could not be queued.", why, "Free some space or memory.") from error
        self.advance()
        return self.get(folder.name)

    def advance(self) -> None:
        """Start the next run if none is running; any process may call this at any time. Raises `RunError`."""
        with self._locked():
            runs = self._read()
            first = next((run for run in runs if run.place == 1), None)
            if first and not any(run.state == "running" for run in runs):
                self._start(first)

    def attend(self, stop: threading.Event | None = None, every_s: float = EVERY_S) -> None:
        """Advance the queue regularly until `stop` is set, or for ever; for a thread of a server."""
        logged, stop = "", stop or threading.Event()
        while not stop.wait(every_s):
            try:
                self.advance()
                logged = ""
            except Exception as error:
                # A full disk or a damaged file may be mended while the server goes on.
                if str(error) != logged:
                    log.warning("The queue of runs is held up. %s", error, exc_info=not isinstance(error, GraftError))
                logged = str(error)

    def list(self) -> list[Run]:
        """Return every run, newest first. Raises `RunError`."""
        with self._locked():
            return [*self._read()]

    def get(self, id: str) -> Run:
        """Return the run of that id; raises `RunError`."""
        with self._locked():
            return self._find(id)

    def wait(self, id: str, every_s: float = 0.5) -> Run:
        """Return the run of that id once it is no longer active, advancing the queue meanwhile."""
        while (run := self.get(id)).active:
            self.advance()
            time.sleep(every_s)
        return run

    def pause(self, id: str) -> None:
        """Ask a running run to stop at its next step, with a checkpoint. Raises `RunError`."""
        with self._locked():
            run = self._find(id)
            run.require("pause")
            (run.folder / PAUSE).touch()

    def resume(self, id: str) -> None:
        """Queue a paused or interrupted run again. Raises `RunError`."""
        with self._locked():
            run = self._find(id)
            run.require("resume")
            files.write_text(run.folder / QUEUED, str(time.time()))
        self.advance()

    def cancel(self, id: str) -> None:
        """End a run and all that it started; nothing is published. A run that has ended stays as it is."""
        with self._locked():
            run = self._find(id)
            if run.may("cancel"):
                (run.folder / CANCEL).touch()
                (run.folder / QUEUED).unlink(missing_ok=True)
        if run.state == "running":
            run_process.end(run.folder)
        self.advance()

    def delete(self, id: str) -> None:
        """Delete the folder of a run that is not running; its versions stay. Raises `RunError`."""
        with self._locked():
            run = self._find(id)
            run.require("delete")
            aside = files.staging_name(self._root)
            run.folder.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)  # checkpoints of gigabytes, so not under the lock
        self.advance()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes and threads from reading or changing runs. Raises `RunError`."""
        try:
            with files.lock(self._home / LOCK, LOCK_PATIENCE_S):
                yield
        except OSError as error:
            why = f"{error.strerror or error}."
            next = "See that GRAFT_HOME can be read and written and that its disk is not full."
            if isinstance(error, files.LockTimeout):
                next = "Continue or end the Graft process that is suspended; `ps` shows its state as T."
            raise RunError("The runs cannot be looked after.", why, next) from error

    def _read(self) -> Sequence[Run]:
        """Read every run, newest first, with its place in the queue; records the end of those without a result."""
        run_process.reap()
        folders = sorted(self._root.glob("[!.]*"), reverse=True)
        self._known = {folder: self._known[folder] for folder in folders if folder in self._known}
        runs = [run for folder in folders if (run := self._read_one(folder))]
        waiting = sorted((run for run in runs if run.state == "queued"), key=lambda run: (run.queued, run.id))
        places = {run.id: place for place, run in enumerate(waiting, 1)}
        return [replace(run, place=places.get(run.id, 0)) for run in runs]

    def _read_one(self, folder: Path) -> Run | None:
        """Read a run, unless no file in its folder was made, replaced or removed since it was read."""
        try:
            changed = folder.stat().st_mtime_ns
        except FileNotFoundError:
            return None  # it was removed by hand just now
        if folder in self._known and self._known[folder][0] == changed:
            return self._known[folder][1]
        run = read_run(folder)
        if run and run.state == "running":
            _finish_cancel(run)
        elif run and run.state in ("cancelled", "interrupted") and not read_result(folder):
            run_process.sweep(folder)
            _write_result(run, run_process.explain_end(folder))
        elif time.time() - changed / 1e9 > SETTLED_S:
            self._known[folder] = (changed, run)
        return run

    def _find(self, id: str) -> Run:
        for run in self._read():
            if run.id == id:
                return run
        raise RunError(f"There is no run {id!r}.", "", "Choose one from the list.")

    def _start(self, run: Run) -> None:
        try:
            run_process.start(self._command, run.folder, self._home, run.duration)
        except OSError as error:
            _write_result(run, f"Its process could not be started: {error.strerror or error}.")
            (run.folder / QUEUED).unlink(missing_ok=True)

    def plan(self, config: TrainConfig) -> RunPlan | None:
        """Return the plan of a run, to estimate its needs; None where its base is not on this disk or not known.

        Raises `UnknownColumns` where no columns of the rows were chosen or could be guessed.
        """
        if find_shape(config.model, self._home)[0] is None:
            return None
        report = self._report(config) if Path(config.data).is_file() else None
        lengths, labels = lengths_of(config, report)
        running = [run.folder for run in self.list() if run.state == "running"]
        return plan_run(config, self._home, lengths, labels, machine.measure(self._home, running))

    def _report(self, config: TrainConfig) -> Report | None:
        """Return the report on the rows of a run, by any longest length; None for rows that the run will refuse."""
        inspection = inspection_of(config)
        rows, _ = inspection.key()
        for (other, _), report in self._reports.items():
            if other == rows:
                return report
        try:
            *_, report = self.look(inspection)
        except UnknownColumns:
            raise
        except DataError:
            return None
        return report

    def look(self, inspection: Inspection) -> Iterator[Report]:
        """Yield the report of a child process as it grows, or a complete one that was kept. Raises `DataError`."""
        if (key := inspection.key()) in self._reports:
            yield self._reports[key]
            return
        report = None
        for report in inspection.reports(self._home):
            yield report
        # A report that waits for the base is made again. Columns that were guessed are named in the next request.
        if report and report.untokenized != LATER:
            chosen = replace(inspection, mapping=report.mapping)
            plain = replace(chosen, held_out=None)
            kept = [*self._reports.items()][-KEPT_REPORTS:]
            self._reports = {**dict(kept), **dict.fromkeys((key, chosen.key(), plain.key()), report)}

    def write_bad_rows(self, inspection: Inspection, out: Path) -> int:
        """Write every row that is left out as JSONL; returns their number. Raises `DataError`."""
        return inspection.write_bad_rows(self._home, out)


def inspection_of(config: TrainConfig) -> Inspection:
    """Return the inspection of the rows of a run."""
    spec = TabSpec(config.plugin, config.model, config.task, config.tab_columns, config.prompt)
    return Inspection(Path(config.data), spec, config.mapping, config.max_length)


def _finish_cancel(run: Run) -> None:
    """End a run that was cancelled by a process which did not live to end it."""
    with suppress(FileNotFoundError):
        if time.time() - (run.folder / CANCEL).stat().st_mtime > 2 * run_process.GRACE_S:
            run_process.end(run.folder, grace_s=0)


def _write_result(run: Run, why: str) -> None:
    """Write the result of a run whose process left none."""
    after = "Resume it: it goes on from its last checkpoint." if run.resumable else "Resume it: it begins anew."
    result = {"state": "interrupted", "what": STOPPED, "why": why, "next": f"{after} {SHORT_OF_MEMORY}"}
    # On a full disk it is tried again at the next reading; the state is the same without it.
    with suppress(OSError):
        files.write_json(run.folder / RESULT, {"state": "cancelled"} if run.state == "cancelled" else result)


def _with_own_data(config: TrainConfig, staging: Path, folder: Path) -> TrainConfig:
    """Return the configuration with copies of its files, because uploads are deleted when the server stops.

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
                _copy_parts(source, staging / place)
            if is_selection(source) or _copy(source, staging / place / source.name):
                copies[field] = str(folder / place / source.name)
    return replace(config, **copies)


def _copy_parts(source: Path, folder: Path) -> None:
    """Copy or link the files of a selection, and write a selection that names the copies."""
    chosen = read_selection(source)
    paths = [path.resolve() for path in chosen.paths(source)]
    names = [f"{i:05d}-{path.name}" for i, path in enumerate(chosen.paths(source))]
    copied = [name if _copy(path, folder / name) else str(path) for path, name in zip(paths, names, strict=True)]
    replace(chosen, files=tuple(copied)).write(folder / source.name)


def _copy(source: Path, copy: Path) -> bool:
    """Copy a file, or link a large one; returns False for a large one on another disk, which cannot be linked."""
    if source.stat().st_size <= LARGE:
        shutil.copyfile(source, copy)
        return True
    with suppress(OSError):
        os.link(source, copy)
        return True
    return False
