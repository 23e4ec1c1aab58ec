"""Work on a home whose disk fails, or whose process dies, at the k-th write, fsync or rename, for every k.

    python -m tests.helpers.faulty SCENARIO HOW FOLDER

prints a line of JSON for each k: what failed, whether the work was acknowledged, and what is wrong afterwards. HOW is
`full` (the operation fails, a write by half, and the process goes on), `die` (the process ends there) or `power` (it
ends, and of files that were written and not synced half is lost). As SQLite tests its own journal
(https://www.sqlite.org/testing.html), with the crash states of ALICE (Pillai et al., OSDI 2014).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from errors import GraftError
from settings import Settings
from store import files
from store.adapters import AdapterStore, Version
from store.corrections import Corrections
from tests.helpers.run_helpers import plain
from training.config import TrainConfig
from training.events import CONFIG
from training.runs.runs import Runs

DEAD = 9
WEIGHTS = b"weights" * 1000


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
                self.die()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def die(self) -> None:
        self.lose()
        os._exit(DEAD)

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

            return _Wrapped(file, spoiled)

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
        self.dirty = {target / path.relative_to(source) if path.is_relative_to(source) else path: synced
                      for path, synced in self.dirty.items()}  # fmt: skip
        self.operate(f"after the rename to {target.name}")


class _Wrapped:
    """A file that writes through `write`."""

    def __init__(self, file: Any, write: Callable[[Any], Any]) -> None:
        self._file, self.write = file, write

    def __enter__(self) -> _Wrapped:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def publish(home: Path, name: str = "mine") -> Version:
    store = AdapterStore(home)
    with store.staging() as staging:
        (staging / "adapter_model.safetensors").write_bytes(WEIGHTS)
        (staging / "card.json").write_text("{}")
        return store.publish(staging, name, {"plugin": "echo", "created": "2026"})


def prepare(home: Path) -> None:
    """Two versions, the first of them live, a correction and a run."""
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
"""What must be so once the work has said that it is done."""


def refs(home: Path) -> set[str]:
    return {version.ref for version in AdapterStore(home).versions()}


def live(home: Path) -> str:
    found = AdapterStore(home).live("echo")
    return found.ref if found else "base"


def targets(home: Path) -> dict[str, str]:
    return {one.asked: one.target for one in Corrections(home).list("echo")}


def problems(home: Path, scenario: str, acknowledged: bool) -> list[str]:
    """What is wrong with a home after a fault: nothing that was there before may be gone or changed."""
    found: list[str] = []
    try:
        for version in AdapterStore(home).versions():
            version.check_files()
            if (version.path / "adapter_model.safetensors").read_bytes() != WEIGHTS:
                found.append(f"{version.ref} has other bytes")
        lost = {"mine@1", *(() if scenario == "delete" else ("mine@2",))} - refs(home)
        found += [f"{ref} is gone" for ref in lost]
        if live(home) not in {"promote": ("mine@1", "mine@2"), "roll back": ("mine@1", "base")}.get(
            scenario, ("mine@1",)
        ):
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


def again(home: Path, scenario: str) -> list[str]:
    """Whether the home still works, and what is left over."""
    for parent in (home, home / "adapters", *(home / "adapters").glob("[!.]*"), home / "live", home / "runs",
                   *(home / "runs").glob("[!.]*")):  # fmt: skip
        files.sweep(parent, older_than_s=-1)
    left = [str(path) for path in home.rglob(f"{files.STAGING_PREFIX}*")]
    number = publish(home).number
    Corrections(home).add("echo", {"text": "later", "target": "fine"}, "bad", "base")
    return [
        *left,
        *([] if number > 2 and "later" in targets(home) else [f"the next is mine@{number}: {targets(home)}"]),
    ]


def attempt(home: Path, scenario: str, how: str, k: int) -> dict[str, Any]:
    """The work with its k-th operation spoiled, in a process of its own; what is so afterwards."""
    reads, writes = os.pipe()
    if (pid := os.fork()) == 0:
        with Disk(k, how) as disk:
            try:
                SCENARIOS[scenario](home)
                acknowledged = True
            except (OSError, GraftError):
                acknowledged = False
        disk.lose()  # the power may fail as soon as it was acknowledged
        os.write(
            writes, json.dumps({"failed": disk.failed, "acknowledged": acknowledged, "count": disk.count}).encode()
        )
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
    found += again(home, scenario)
    return {"k": k, "acknowledged": acknowledged, "done": bool(told) and not told["failed"], "problems": found, **told}


def main(scenario: str, how: str, folder: Path) -> int:
    """Every k, until there is none."""
    prepare(folder / "sound")
    k = 0
    while True:
        k += 1
        home = folder / "home"
        shutil.copytree(folder / "sound", home)
        told = attempt(home, scenario, how, k)
        shutil.rmtree(home)
        print(json.dumps(told), flush=True)
        if told["done"]:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
