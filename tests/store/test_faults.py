"""A disk that fails and a process that dies, at every write, fsync and rename of what is acknowledged to people.

    python -m tests.store.test_faults SCENARIO HOW FOLDER

does the work with its k-th operation spoiled, for every k, and prints a line of JSON each: what failed, whether the
work was acknowledged, and what is wrong afterwards. HOW is `full` (the operation fails, a write by half, and the
process goes on), `die` (the process ends there) or `power` (it ends, and of files that were written and not synced half
is lost). As SQLite tests its own journal (https://www.sqlite.org/testing.html), with the crash states of ALICE (Pillai
et al., OSDI 2014).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from errors import GraftError
from settings import Settings
from store import files
from store.adapters import CARD, WEIGHTS, AdapterStore, Version
from store.corrections import Corrections
from tests.helpers.child import run
from tests.helpers.run_helpers import plain
from training.config import TrainConfig
from training.events import CONFIG
from training.runs.runs import Runs

LEAST = {"publish": 15, "promote": 4, "roll back": 4, "delete": 2, "correct": 2, "edit": 2, "submit": 6, "finish": 4}
"""Operations that each scenario has at least; fewer would mean that something is not counted."""
DEAD = 9
BYTES = b"weights" * 1000


class Disk:
    """Counts what is done to the disk, and spoils operation `k`."""

    def __init__(self, k: int, how: str) -> None:
        self.k, self.how, self.count, self.failed = k, how, 0, ""
        self.dirty: dict[Path, int] = {}  # files with bytes that were not synced, and how many were
        self.renamed: list[tuple[Path, Path, Path, bytes | None]] = []  # whose directory was not: it, from, to, over

    def __enter__(self) -> Disk:
        self._kept = (Path.open, os.fsync, os.rename)
        Path.open, os.fsync, os.rename = self._opener(), self._fsync, self._rename  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Path.open, os.fsync, os.rename = self._kept  # type: ignore[method-assign]

    def operate(self, name: str, spoil: Callable[[], object] = lambda: None) -> None:
        """Count one operation; the k-th is spoiled and fails."""
        self.count += 1
        if self.count == self.k:
            spoil()
            self.failed = name
            if self.how != "full":
                self.lose()
                os._exit(DEAD)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def lose(self) -> None:
        """Where the power fails: half of what files got unsynced, and renames of which the directory was not synced."""
        if self.how != "power":
            return
        for path, synced in self.dirty.items():
            with suppress(OSError):
                os.truncate(path, (synced + path.stat().st_size) // 2)
        for _, source, target, was in reversed(self.renamed):
            with suppress(OSError):
                self._kept[2](target, source)
                if was is not None:
                    with open(target, "wb") as file:  # not by the way that is counted
                        file.write(was)

    def _opener(self) -> Callable[..., Any]:
        disk, plain_open = self, self._kept[0]

        def opened(path: Path, mode: str = "r", *args: Any, **named: Any) -> Any:
            file = plain_open(path, mode, *args, **named)
            if not set(mode) & set("wax+"):
                return file
            write = file.write

            def spoiled(data: Any) -> Any:
                disk.dirty.setdefault(path, path.stat().st_size)
                disk.operate(f"write {path.name}", lambda: (write(data[: len(data) // 2]), file.flush()))
                return write(data)

            file.write = spoiled
            return file

        return opened

    def _fsync(self, descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self.operate(f"fsync {path.name}")
        self._kept[1](descriptor)
        self.dirty.pop(path, None)
        self.renamed = [rename for rename in self.renamed if rename[0] != path]

    def _rename(self, source: Any, target: Any, **named: Any) -> None:
        source, target = Path(source), Path(target)
        self.operate(f"rename to {target.name}")
        was = target.read_bytes() if target.is_file() else None
        self._kept[2](source, target, **named)
        self.renamed.append((target.parent, source, target, was))
        moved = [path for path in self.dirty if path.is_relative_to(source)]
        self.dirty |= {target / path.relative_to(source): self.dirty.pop(path) for path in moved}
        self.operate(f"after the rename to {target.name}")


def publish(home: Path) -> Version:
    store = AdapterStore(home)
    with store.staging() as staging:
        (staging / WEIGHTS).write_bytes(BYTES)
        (staging / CARD).write_text("{}")
        return store.publish(staging, "mine", {"plugin": "echo", "created": "2026"})


def prepare(home: Path) -> None:
    """Make two versions, the first of them live, a correction and a run."""
    publish(home), publish(home)
    AdapterStore(home).promote("echo", "mine@1")
    Corrections(home).add("echo", {"text": "kept", "target": "good"}, "bad", "base")
    submit(home)


def submit(home: Path) -> None:
    runs = Runs(Settings(home=home))
    runs.advance = lambda: None  # type: ignore[method-assign] - what is queued is written, and nothing started
    data = home.parent / "rows.csv"
    data.write_bytes(b"text,label\n" + b"a,b\n" * 50)
    runs.submit(TrainConfig(**{**vars(plain(home, "queued")), "data": str(data)}))


def finish(home: Path) -> None:
    (folder,) = sorted((home / "runs").glob("[!.]*"))[:1]
    files.write_json(folder / "result.json", {"state": "failed", "what": "x" * 500})


SCENARIOS: dict[str, Callable[[Path], object]] = {
    "publish": publish,
    "promote": lambda home: AdapterStore(home).promote("echo", "mine@2", "why", "who"),
    "roll back": lambda home: AdapterStore(home).roll_back("echo"),
    "delete": lambda home: AdapterStore(home).delete("mine@2"),
    "correct": lambda home: Corrections(home).add("echo", {"text": "new", "target": "good"}, "bad", "base"),
    "edit": lambda home: Corrections(home).edit("echo", Corrections(home).list("echo")[0].id, "better"),
    "submit": submit,
    "finish": finish,
}
ACKNOWLEDGED: dict[str, Callable[[Path], bool]] = {
    "publish": lambda home: "mine@3" in refs(home),
    "promote": lambda home: live(home) == "mine@2",
    "roll back": lambda home: live(home) == "base",
    "delete": lambda home: refs(home) == {"mine@1"},
    "correct": lambda home: targets(home) == {"kept": "good", "new": "good"},
    "edit": lambda home: targets(home) == {"kept": "better"},
    "submit": lambda home: len(Runs(Settings(home=home)).list()) == 2,
    "finish": lambda home: "what" in files.read_json(sorted((home / "runs").glob("[!.]*/result.json"))[0]),
}
"""Checks of what the work has acknowledged."""


def refs(home: Path) -> set[str]:
    return {version.ref for version in AdapterStore(home).versions()}


def live(home: Path) -> str:
    found = AdapterStore(home).live("echo")
    return found.ref if found else "base"


def targets(home: Path) -> dict[str, str]:
    return {one.question: one.target for one in Corrections(home).list("echo")}


def problems(home: Path, scenario: str, acknowledged: bool) -> list[str]:
    """Return what is wrong with a home after a fault: nothing that was there before may be gone or changed."""
    found: list[str] = []
    try:
        for version in AdapterStore(home).versions():
            version.check_files()
            if (version.path / WEIGHTS).read_bytes() != BYTES:
                found.append(f"{version.ref} has other bytes")
        kept = {"mine@1"} if scenario == "delete" else {"mine@1", "mine@2"}
        found += [f"{ref} is gone" for ref in kept - refs(home)]
        if live(home) not in {"mine@1", {"promote": "mine@2", "roll back": "base"}.get(scenario)}:
            found.append(f"live is {live(home)}")
        if targets(home).get("kept") not in ("good", "better" if scenario == "edit" else "good"):
            found.append(f"corrections are {targets(home)}")
        found += [f"{run.id} is {run.state}" for run in Runs(Settings(home=home)).list() if not run.config.name]
        found += [f"{path} is no whole run" for path in (home / "runs").glob("[!.]*") if not (path / CONFIG).exists()]
        if acknowledged and not ACKNOWLEDGED[scenario](home):
            found.append("it was acknowledged, and is not so")
    except (GraftError, OSError, ValueError) as error:
        found.append(repr(error))
    return found


def again(home: Path) -> list[str]:
    """Return what is left over, and what does not work any more."""
    swept = [home, *(home / name for name in ("adapters", "live", "runs"))]
    for path in (*swept, *(home / "adapters").glob("[!.]*"), *(home / "runs").glob("[!.]*")):
        files.sweep(path, older_than_s=-1)
    found = [f"{path} is left" for path in home.rglob(f"{files.STAGING_PREFIX}*")]
    number = publish(home).number
    Corrections(home).add("echo", {"text": "later", "target": "fine"}, "bad", "base")
    if number <= 2 or "later" not in targets(home):
        found.append(f"the next is mine@{number}: {targets(home)}")
    return found


def attempt(home: Path, scenario: str, how: str, k: int) -> dict[str, Any]:
    """Do the work with its k-th operation spoiled, in a process of its own; returns what is so afterwards."""
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        with Disk(k, how) as disk:
            try:
                SCENARIOS[scenario](home)
                acknowledged = True
            except (OSError, GraftError):
                acknowledged = False
        disk.lose()  # the power may fail as soon as it was acknowledged
        os.write(writes, json.dumps({"failed": disk.failed, "acknowledged": acknowledged}).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        told = json.loads(pipe.read() or b"{}")
    os.waitpid(pid, 0)
    acknowledged = bool(told.get("acknowledged"))
    found = problems(home, scenario, acknowledged)
    if how == "full" and not acknowledged:
        found += [f"{path} is left over" for path in home.rglob(f"{files.STAGING_PREFIX}*")]
        found += [f"{ref} is gone" for ref in {"mine@1", "mine@2"} - refs(home)]
    found += again(home)
    done = bool(told) and not told["failed"]
    return {"k": k, "acknowledged": acknowledged, "done": done, "problems": found, **told}


@pytest.mark.parametrize("how", ["full", "die", "power"])
@pytest.mark.parametrize("scenario", LEAST)
def test_r11_r20_whatever_fails_what_was_there_is_whole_and_what_was_acknowledged_is_there(
    scenario: str, how: str, tmp_path: Path
) -> None:
    child = run("-m", "tests.store.test_faults", scenario, how, str(tmp_path))
    assert child.returncode == 0, child.stderr
    lines = [json.loads(line) for line in child.stdout.splitlines()]
    assert [line for line in lines if line["problems"]] == []
    assert lines[-1]["acknowledged"] and len(lines) > LEAST[scenario]
    assert how == "full" or not any(line["acknowledged"] for line in lines[:-1]), "the dead acknowledge nothing"


def test_every_scenario_is_explored() -> None:
    assert set(LEAST) == set(SCENARIOS) == set(ACKNOWLEDGED)


if __name__ == "__main__":
    scenario, how, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    prepare(folder / "sound")
    for k in count(1):
        shutil.copytree(folder / "sound", folder / "home")
        outcome = attempt(folder / "home", scenario, how, k)
        shutil.rmtree(folder / "home")
        print(json.dumps(outcome), flush=True)
        if outcome["done"]:
            break
