"""Any order of what people and crashes can do to runs: one runs at most, ends stay, no process is left over."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from errors import RunError
from settings import Settings
from tests.helpers.run_helpers import STAND_IN, alive, end_all, pid_of, plain
from tests.helpers.waiting import until
from training.runs.run import ENDS, Run
from training.runs.runs import Runs

pytestmark = pytest.mark.slow

ENDED = ("done", "failed", "cancelled")
"""States that no other follows."""


class Machine(RuleBasedStateMachine):
    """Drives `Runs` with the stand-in as its process, and remembers what it has seen."""

    submitted: Bundle[str] = Bundle("submitted")

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp()) / "home"
        self.home.mkdir()
        self.runs = Runs(Settings(home=self.home), STAND_IN)
        self.seen: dict[str, str] = {}
        self.pids: dict[int, str] = {}

    @initialize(target=submitted)
    def first(self) -> str:
        return self.runs.submit(plain(self.home)).id

    @rule(target=submitted, kind=st.sampled_from(["plain", "plain", "stubborn"]))
    def submit(self, kind: str) -> str:
        return self.runs.submit(plain(self.home, kind)).id

    @rule()
    def advance(self) -> None:
        self.runs.advance()

    @rule()
    def another_server(self) -> None:
        """The one before was killed; this one knows nothing but the disk."""
        self.runs = Runs(Settings(home=self.home), STAND_IN)

    @rule()
    def progress(self) -> None:
        if run := self.working():
            before = run.progress.step
            until(lambda: run.progress.step > before)

    @rule(how=st.sampled_from(["finish", "fail", "crash", "kill", "pause"]))
    def ends(self, how: str) -> None:
        """The worker publishes, fails, exits, is killed or obeys a request to pause."""
        run = self.working()
        if run is None:  # no precondition: which rules there are must not depend on when a process stops
            return
        until(lambda: run.progress.step)
        if how == "kill":
            os.kill(pid_of(run), signal.SIGKILL)
        elif how == "pause":
            self.runs.pause(run.id)
        else:
            (run.folder / how).touch()
        expected = {"finish": "done", "fail": "failed", "pause": "paused"}.get(how, "interrupted")
        until(lambda: self.runs.get(run.id).state == expected)
        (run.folder / "crash").unlink(missing_ok=True)

    @rule(id=submitted, verb=st.sampled_from(["pause", "resume"]))
    def asked(self, id: str, verb: str) -> None:
        run = self.runs.get(id)
        if run.may(verb):  # type: ignore[arg-type]
            getattr(self.runs, verb)(id)
        elif not run.pausing:
            with suppress(RunError):
                getattr(self.runs, verb)(id)
                raise AssertionError(f"{verb} of a run that is {run.state}")

    @rule(id=submitted)
    def cancel(self, id: str) -> None:
        before = self.runs.get(id).state
        self.runs.cancel(id)
        after = self.runs.get(id).state
        if before in ("queued", "paused"):
            assert after == "cancelled"
        elif before != "running":
            assert after == before, "it had ended"
        else:
            assert after in ENDS, "a run that ends by itself in that moment keeps what it has made"

    @rule(id=consumes(submitted))
    def delete(self, id: str) -> None:
        if self.runs.get(id).state == "running":
            self.runs.cancel(id)
        self.runs.delete(id)
        self.seen.pop(id, None)
        assert not (self.home / "runs" / id).exists()

    def working(self) -> Run | None:
        """The run that goes on, and goes on doing so: one that was asked to pause may stop at any moment."""
        return next((run for run in self.runs.list() if run.state == "running" and not run.pausing), None)

    @invariant()
    def one_runs_at_most_and_ends_stay(self) -> None:
        found = self.runs.list()
        assert sum(run.state == "running" for run in found) <= 1
        waiting = sorted((run for run in found if run.state == "queued"), key=lambda run: run.queued)
        assert [run.place for run in waiting] == [*range(1, len(waiting) + 1)]
        for run in found:
            assert self.seen.get(run.id) not in ENDED or run.state == self.seen[run.id]
            self.seen[run.id] = run.state
        assert set(self.seen) == {run.id for run in found}, "none is lost"

    @invariant()
    def no_process_is_left(self) -> None:
        """Those of a run live only while it runs; one that has left its own result may take a moment to go."""
        runs = {run.id: run for run in self.runs.list()}
        for run in runs.values():
            with suppress(FileNotFoundError):
                self.pids[pid_of(run)] = run.id
                self.pids[int((run.folder / "grandchild").read_text())] = run.id
        for pid, id in self.pids.items():
            if id not in runs or runs[id].state in ("queued", "paused", *ENDS):
                until(lambda pid=pid: not alive(pid))

    def teardown(self) -> None:
        end_all(self.runs)
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home.parent)


TestR31Machine = Machine.TestCase
TestR31Machine.settings = settings(
    max_examples=30, stateful_step_count=15, print_blob=True, deadline=None, suppress_health_check=list(HealthCheck)
)
