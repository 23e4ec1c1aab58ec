"""Kills of the server, a run and a writer at random moments: nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from bench.bench_tab import republish
from bench.servers import serve_app
from errors import GraftError
from settings import REPOSITORY, Settings, child_environment
from store import files
from store.adapters import WEIGHTS, AdapterStore
from store.corrections import Corrections
from tests.helpers.generation_home import TAB, make_home, short_run
from tests.helpers.run_helpers import end_all, pid_of
from tests.slow import size
from training.runs.runs import Runs

MINUTES, SEED = size("KILL_MINUTES", 0.1), int(size("KILL_SEED", 1))


def write_changes(home: Path, ref: str, seed: int) -> None:
    """Publish, promote and correct without end; prints each change as JSON once it is done, a promotion also before."""
    chance, store, corrections = random.Random(seed), AdapterStore(home), Corrections(home)
    while True:
        kind = chance.choice(("version", "live", "correction"))
        if kind == "version":
            done = republish(store, store.get(ref), f"copy{seed}").ref
        elif kind == "live":
            done = chance.choice(store.versions(TAB)).ref
            print(json.dumps(["will", done]), flush=True)
            store.promote(TAB, done)
        else:
            done = f"question {seed} {chance.random()}"
            corrections.add(TAB, {"text": done, "target": "answer"}, "no", ref)
        print(json.dumps([kind, done]), flush=True)


@dataclass
class Acknowledged:
    """Changes that were reported as done."""

    versions: dict[str, str] = field(default_factory=dict)
    """Name -> hash of its weights."""
    corrections: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)
    """Versions that may be live: the last that was acknowledged, and those begun after it."""

    def read(self, lines: Sequence[str], home: Path) -> None:
        """Take the lines of a writer; half a line acknowledges nothing."""
        for line in lines:
            with suppress(ValueError):
                kind, done = json.loads(line)
                if kind == "version":
                    self.versions[done] = files.sha256(AdapterStore(home).get(done).path / WEIGHTS)
                elif kind == "correction":
                    self.corrections.add(done)
                else:
                    self.live = {done} if kind == "live" else self.live | {done}

    def lost(self, home: Path) -> list[str]:
        """Describe what is no longer there, or not as it was."""
        store, found = AdapterStore(home), list[str]()
        for ref, digest in self.versions.items():
            try:
                version = store.get(ref)
                version.check_files()
                if files.sha256(version.path / WEIGHTS) != digest:
                    found.append(f"{ref} has other weights")
            except GraftError as error:
                found.append(str(error))
        there = {correction.question for correction in Corrections(home).list(TAB)}
        found += [f"the correction {text!r} is gone" for text in self.corrections - there]
        live = store.live(TAB)
        if self.live and (live.ref if live else "base") not in self.live:
            found.append(f"live is {live and live.ref}, and not one of {sorted(self.live)}")
        there = {version.ref for version in store.versions()}
        published = {run.version for run in Runs(Settings(home=home)).list() if run.state == "done" and run.version}
        return found + [f"{ref} of a run is gone" for ref in published - there]


def kill_runs(home: Path) -> None:
    for run in Runs(Settings(home=home)).list():
        if run.state == "running":
            with suppress(OSError, ValueError, KeyError):
                os.kill(pid_of(run), signal.SIGKILL)


def work_and_kill(home: Path, first: str, number: int, chance: random.Random) -> list[str]:
    """Serve, train and write until all three are killed in any order; returns the writer's lines."""
    with serve_app(home, {TAB: str(home / "llama")}) as server:
        runs = Runs(Settings(home=home))
        if not any(run.active for run in runs.list()):
            runs.submit(short_run(home, f"run{number}"))
        command = [sys.executable, "-m", "tests.slow.test_kills", str(home), first, str(number)]
        writer = subprocess.Popen(command, cwd=REPOSITORY, env=child_environment(), stdout=subprocess.PIPE, text=True)
        begun = writer.stdout.readline()
        time.sleep(chance.uniform(1, 8))
        kills = [partial(os.kill, server.pid, signal.SIGKILL), writer.kill, partial(kill_runs, home)]
        for kill in chance.sample(kills, len(kills)):
            kill()
        return (begun + writer.communicate()[0]).splitlines()


@pytest.mark.slow
def test_r11_r18_r31_kills_at_random_moments_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    home, first = make_home(tmp_path)
    chance, changes, rounds = random.Random(SEED), 0, 0
    acknowledged, stop = Acknowledged(), time.monotonic() + 60 * MINUTES
    acknowledged.read([json.dumps(["version", first])], home)
    try:
        while not rounds or time.monotonic() < stop:
            lines = work_and_kill(home, first, rounds, chance)
            acknowledged.read(lines, home)
            rounds, changes = rounds + 1, changes + len(lines)
            assert acknowledged.lost(home) == [], f"round {rounds} of seed {SEED}"
    finally:
        end_all(Runs(Settings(home=home)))
    print(f"{rounds} rounds, {changes} changes, {len(acknowledged.versions)} versions")
    assert changes > 3


def test_a_loss_is_noticed(tmp_path: Path) -> None:
    assert len(Acknowledged({"gone@1": "x"}, {"a question"}, {"gone@1"}).lost(tmp_path)) == 3


if __name__ == "__main__":
    write_changes(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
