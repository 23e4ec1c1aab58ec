"""Runs, as the page and the command line see them: started as child processes, known by their folders alone.

    home/runs/<id>/   config.json  events.jsonl  train.log  process.json  result.json

A run's state is derived from its folder each time, so that a reload of the page, a second browser or a restarted
server sees the same. No torch is imported here.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from errors import DataError, GraftError, RunError
from settings import REPOSITORY, Settings, child_environment
from store import files
from tasks import TASKS, TabSpec
from training.config import TrainConfig
from training.events import CONFIG, LOG, PROCESS, RESULT, read_events
from training.report import Report

State = Literal["running", "done", "failed", "cancelled"]
INSPECT_TIMEOUT_S = 60
LOG_LINES = 12
STARTING_S = 10.0
"""How long a run may be without the note of its process."""
GRACE_S = 5.0
"""How long a cancelled run may take to end by itself."""


@dataclass(frozen=True)
class Progress:
    """How far a run is. `losses` are (step, training loss); `left_s`: seconds of training left, by its pace."""

    phase: str = "start"
    step: int = 0
    steps: int = 0
    left_s: float | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """One run's folder, read."""

    id: str
    folder: Path
    config: TrainConfig

    @property
    def state(self) -> State:
        """running, done, failed or cancelled."""
        # Life first, then the result: a run may end, and leave one, between the two.
        alive, result = self._alive(), self._result_file()
        if result:
            state: State = result["state"]
            return state
        return "running" if alive else "failed"

    @property
    def result(self) -> dict[str, Any]:
        """What the run ended with; empty while it goes on. A failed one has what, why, next and its last log lines."""
        alive, result = self._alive(), self._result_file()
        if not result:
            if alive:
                return {}
            result = {"state": "failed", **_death(_process(self.folder))}
        return {**result, "log": self.log_tail()} if result["state"] == "failed" else result

    @property
    def progress(self) -> Progress:
        """How far it is, from its events."""
        events = read_events(self.folder)
        phases = [e for e in events if e["kind"] == "phase"]
        steps = [e for e in events if e["kind"] == "step"]
        losses = [(e["step"], e["loss"]) for e in steps]
        if not steps:
            return Progress(phases[-1]["phase"] if phases else "start")
        first, last = steps[0], steps[-1]
        pace = (last["at"] - first["at"]) / max(1, last["step"] - first["step"])
        left = pace * (last["steps"] - last["step"]) if last["step"] > first["step"] else None
        return Progress(phases[-1]["phase"], last["step"], last["steps"], left, losses)

    def log_tail(self, lines: int = LOG_LINES) -> list[str]:
        """The last lines that the child printed."""
        path = self.folder / LOG
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 20_000))
            text = file.read().decode("utf-8", "replace").replace("\r", "\n")
        return [line for line in text.split("\n") if line.strip()][-lines:]

    def _result_file(self) -> dict[str, Any]:
        path = self.folder / RESULT
        return dict(files.read_json(path)) if path.exists() else {}

    def _alive(self) -> bool:
        process = _process(self.folder)
        if not process and self.folder.exists():
            # It is being started: the note of its process is written right after.
            return time.time() - self.folder.stat().st_mtime < STARTING_S
        # A child that has ended stays a zombie until its parent asks; poll() of ours is that question.
        ours = _CHILDREN.get(process.get("pid", 0))
        if ours is not None and ours.poll() is not None:
            return False
        started = _start_time(process["pid"]) if process else 0
        if ours is not None and started == 0:
            return True  # a zombie whose threads are still ending: its exit code comes with the next question
        # 0 in the note is a child that had ended before it was written.
        return started != 0 and started == process["started"]


class Runs:
    """The runs under one home."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._root = settings.home / "runs"

    def start(self, config: TrainConfig) -> Run:
        """Start a run in a child process and return at once. Raises `RunError`."""
        run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        folder = self._root / run_id
        try:
            folder.mkdir(parents=True)
            config = _with_own_data(config, folder)
            (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
            with (folder / LOG).open("wb") as log:
                child = subprocess.Popen(
                    [sys.executable, "-m", "training.worker", str(folder)],
                    cwd=REPOSITORY,
                    env=child_environment(GRAFT_HOME=str(self._settings.home)),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    close_fds=True,
                )
            _CHILDREN[child.pid] = child
            files.write_json(folder / PROCESS, {"pid": child.pid, "started": _start_time(child.pid)})
        except OSError as error:
            why = f"{error.strerror or error}."
            raise RunError("The training could not be started.", why, "Free some space or memory.") from error
        return Run(run_id, folder, config)

    def list(self) -> list[Run]:
        """Every run that can be read, newest first."""
        found = (self._read(folder) for folder in sorted(self._root.glob("*"), reverse=True))
        return [run for run in found if run]

    def get(self, id: str) -> Run:
        """The run of that id; raises `RunError`."""
        for run in self.list():
            if run.id == id:
                return run
        raise RunError(f"There is no run {id!r}.", "", "Choose one from the list.")

    def cancel(self, id: str) -> None:
        """End a running run and everything it started; nothing is published."""
        run = self.get(id)
        if run.state != "running":
            return
        pid = _process(run.folder).get("pid")
        if pid is None:
            raise RunError(f"The run {id} is only being started.", "", "Try again in a moment.")
        _signal_group(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while run._alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        _signal_group(pid, signal.SIGKILL)
        if not (run.folder / RESULT).exists():
            files.write_json(run.folder / RESULT, {"state": "cancelled"})

    def inspect(self, path: Path, spec: TabSpec, mapping: Mapping[str, str] | None = None) -> Report:
        """What is in a file of rows, read by a child process with little memory. Raises `DataError`."""
        if spec.columns is None:
            raise DataError(f"The tab {spec.name} does not learn.", "It names no columns.")
        wanted = {k: v for k, v in vars(spec.columns).items() if v}
        command = [sys.executable, "-m", "training.data", str(path.absolute()), "--answers", TASKS[spec.task].answers]
        command += ["--wanted", json.dumps(wanted), "--columns", json.dumps(dict(mapping or {}))]
        try:
            child = subprocess.run(
                command,
                cwd=REPOSITORY,
                env=child_environment(GRAFT_HOME=str(self._settings.home)),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=INSPECT_TIMEOUT_S,
                text=True,
            )
        except subprocess.TimeoutExpired as error:
            raise DataError(
                f"{path.name} takes too long to read.", "It may be damaged.", "Try a part of it."
            ) from error
        if child.returncode == 0:
            return Report.from_json(child.stdout)
        if child.returncode == 2 and child.stdout.startswith("{"):
            raise DataError(**json.loads(child.stdout))
        raise DataError(f"{path.name} cannot be read.", "Reading it needs too much memory, or it is damaged.")

    def _read(self, folder: Path) -> Run | None:
        try:
            return Run(folder.name, folder, TrainConfig.from_json((folder / CONFIG).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, GraftError):
            return None


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""Children of this process, so that those that ended can be reaped and their exit codes read."""


def _with_own_data(config: TrainConfig, folder: Path) -> TrainConfig:
    """The configuration with copies of its files in the run's folder, because uploads go when the server stops."""
    copies: dict[str, Any] = {}
    for field_, place in (("data", "data"), ("held_out_data", "held_out")):
        source = Path(getattr(config, field_))
        if getattr(config, field_) and source.is_file():
            (folder / place).mkdir()
            copies[field_] = str(shutil.copyfile(source, folder / place / source.name))
    return replace(config, **copies)


def _process(folder: Path) -> dict[str, Any]:
    path = folder / PROCESS
    return dict(files.read_json(path)) if path.exists() else {}


def _start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if there is none. With it, a pid names one process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] == "Z" else int(fields[19])


def _signal_group(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


def _death(process: Mapping[str, Any]) -> dict[str, str]:
    """Why a child that left no result may have ended."""
    child = _CHILDREN.get(process.get("pid", 0))
    code = child.poll() if child else None
    if code is not None and -code in (signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV):
        name = signal.Signals(-code).name
        why = f"Its process was killed ({name}); the usual cause is that the machine ran out of memory."
    elif code is not None:
        why = f"Its process ended with code {code}."
    else:
        why = "Its process is gone and left no result; the machine may have been restarted or out of memory."
    advice = "Use a smaller batch, a shorter longest length or a smaller base, and start again."
    return {"what": "The training stopped before it was done; nothing was published.", "why": why, "next": advice}
