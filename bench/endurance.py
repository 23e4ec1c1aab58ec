"""Mixed load for a long time, and kills at random moments: memory stays flat, and nothing acknowledged is lost.

    python -m bench soak --soak 60     # minutes of asking, uploading, training, swapping and reconnecting
    python -m bench soak --kill 30     # minutes of kill -9 of the server, of a run, and of who writes

With `--soak` the server's memory, threads and open files are read every second, and the last third is set beside the
second. With `--kill`, whatever was acknowledged, versions byte by byte, corrections, what is live, must still be there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from gradio_client import Client

from errors import GraftError
from settings import REPOSITORY, Settings, child_environment
from store import files
from store.adapters import WEIGHTS, AdapterStore
from store.corrections import Corrections
from tasks import Columns, TabSpec
from training.config import TrainConfig
from training.events import PROCESS
from training.runs.runs import Runs

TAB = "generation"
ROWS = REPOSITORY / "examples" / "voice.jsonl"
UPLOAD_S, SWAP_S, SAMPLE_S = 5.0, 0.5, 1.0
PATIENCE_S = 120.0
RECONNECT = 20  # answers


@dataclass
class Server:
    """`python app.py` on a home of its own, with one tab on a base that takes no time."""

    home: Path
    base: Path
    process: subprocess.Popen[str] | None = None
    url: str = ""

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        plugins = self.home / "plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / "plugins" / f"{TAB}.py", plugins)
        environment = child_environment(
            GRAFT_HOME=str(self.home), GRAFT_PORT=str(port), GRAFT_PLUGINS=str(plugins), HF_HUB_OFFLINE="1",
            **{f"GRAFT_MODEL_{TAB.upper()}": str(self.base)},
        )  # fmt: skip
        with (self.home / "server.log").open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "app.py"], cwd=REPOSITORY, env=environment, text=True,
                                            stdout=subprocess.PIPE, stderr=log, start_new_session=True)  # fmt: skip
        assert self.process.stdout and "Graft is ready" in self.process.stdout.readline()
        self.url = f"http://127.0.0.1:{port}"

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End it, without a word unless told otherwise."""
        if self.process:
            self.process.send_signal(how)
            self.process.wait(PATIENCE_S)
            if self.process.stdout:
                self.process.stdout.close()
            self.process = None

    def figures(self) -> dict[str, float]:
        """Resident bytes, threads and open files as the kernel counts them."""
        folder = Path(f"/proc/{self.process.pid if self.process else 0}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
        return {"memory": int(status["VmRSS"].split()[0]) * 1024, "threads": int(status["Threads"]),
                "files": len(list((folder / "fd").iterdir()))}  # fmt: skip


def config_of(home: Path, base: Path, name: str) -> TrainConfig:
    """A short run."""
    spec = TabSpec(TAB, str(base), "causal-lm", Columns(messages="messages"))
    return TrainConfig.for_tab(
        spec, ROWS, name, max_steps=4, max_length=256, evaluations=0, keep_best=False, patience=0
    )


def trained(home: Path, base: Path) -> str:
    """A version to begin with."""
    runs = Runs(Settings(home=home))
    run = runs.wait(runs.submit(config_of(home, base, "first")).id)
    if run.state != "done" or not run.version:
        raise RuntimeError(f"The first run is {run.state}: {run.result}")
    return run.version


def copied(home: Path, ref: str, name: str) -> str:
    """A further version with the files of another."""
    store, version = AdapterStore(home), AdapterStore(home).get(ref)
    with store.staging() as staging:
        for file in version.manifest["files"]:
            shutil.copyfile(version.path / file, staging / file)
        facts = {k: v for k, v in version.manifest.items() if k not in ("format", "name", "number", "files")}
        return store.publish(staging, name, facts).ref


def write(home: Path, ref: str, seed: int) -> None:
    """Publish, promote and correct without end, and say of each, on standard output, when it is done."""
    chance, store, corrections = random.Random(seed), AdapterStore(home), Corrections(home)
    while True:
        kind = chance.choice(("version", "live", "correction"))
        if kind == "version":
            said = copied(home, ref, f"copy{seed}")
        elif kind == "live":
            said = chance.choice(store.versions(TAB)).ref
            print(json.dumps(["will", said]), flush=True)
            store.promote(TAB, said)
        else:
            said = f"question {seed} {chance.random()}"
            corrections.add(TAB, {"text": said, "target": "answer"}, "no", ref)
        print(json.dumps([kind, said]), flush=True)


@dataclass
class Acknowledged:
    """What was said to be done."""

    versions: dict[str, str] = field(default_factory=dict)
    """Name -> hash of its weights."""
    corrections: set[str] = field(default_factory=set)
    live: set[str] = field(default_factory=set)
    """What may be live: the last that was acknowledged, and what was begun after it."""

    def hear(self, lines: Sequence[str], home: Path) -> None:
        """Take what a writer said before it was killed; half a line was never said."""
        for line in lines:
            with suppress(ValueError):
                kind, said = json.loads(line)
                if kind == "version":
                    self.versions[said] = files.sha256(AdapterStore(home).get(said).path / WEIGHTS)
                elif kind == "correction":
                    self.corrections.add(said)
                else:
                    self.live = {said} if kind == "live" else self.live | {said}

    def lost(self, home: Path) -> list[str]:
        """What of it is no longer so."""
        store, found = AdapterStore(home), list[str]()
        for ref, digest in self.versions.items():
            try:
                version = store.get(ref)
                version.check_files()
                if files.sha256(version.path / WEIGHTS) != digest:
                    found.append(f"{ref} has other weights")
            except GraftError as error:
                found.append(str(error))
        there = {one.asked for one in Corrections(home).list(TAB)}
        found += [f"the correction {text!r} is gone" for text in self.corrections - there]
        now = store.live(TAB)
        if self.live and (now.ref if now else "base") not in self.live:
            found.append(f"live is {now and now.ref}, and not one of {sorted(self.live)}")
        for run in Runs(Settings(home=home)).list():
            if run.state == "done" and run.version and not any(v.ref == run.version for v in store.versions()):
                found.append(f"{run.version} of the run {run.id} is gone")
        return found


def kill(home: Path, base: Path, minutes: float, seed: int) -> list[dict[str, Any]]:
    """Rounds of work that is ended at a random moment."""
    chance, counts, lost = random.Random(seed), Counter[str](), list[str]()
    first, said, stop = trained(home, base), Acknowledged(), time.monotonic() + 60 * minutes
    said.versions[first] = files.sha256(AdapterStore(home).get(first).path / WEIGHTS)
    server = Server(home, base)
    while time.monotonic() < stop or not counts["rounds"]:
        server.start()
        runs = Runs(Settings(home=home))
        if not any(run.active for run in runs.list()):
            runs.submit(config_of(home, base, f"run{counts['rounds']}"))
        command = "import sys; from pathlib import Path; from bench import endurance; "
        command += "endurance.write(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))"
        writer = subprocess.Popen([sys.executable, "-c", command, str(home), first, str(counts["rounds"])],
                                  cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)  # fmt: skip
        begun = writer.stdout.readline() if writer.stdout else ""
        time.sleep(chance.uniform(1, 8))
        ends: list[Callable[[], object]] = [server.end, writer.kill, lambda: counts.update(_kill_runs(home))]
        for end in chance.sample(ends, len(ends)):
            end()
        told = (begun + writer.communicate()[0]).splitlines()
        said.hear(told, home)
        counts.update(rounds=1, acknowledged=len(told))
        lost += [f"round {counts['rounds']}: {problem}" for problem in said.lost(home)]
    _end_runs(home)
    return [{"what": "kills", **counts, "versions": len(said.versions), "corrections": len(said.corrections),
             "lost": len(lost), "first": lost[:1]}]  # fmt: skip


def _end_runs(home: Path) -> None:
    """End what still runs, those that wait first, so that nothing outlives the benchmark."""
    runs = Runs(Settings(home=home))
    for run in runs.list():
        with suppress(GraftError):
            runs.cancel(run.id)


def _kill_runs(home: Path) -> dict[str, int]:
    """Kill the processes of runs that are under way."""
    killed = 0
    for run in Runs(Settings(home=home)).list():
        if run.state == "running":
            with suppress(OSError, ValueError, KeyError):
                os.kill(int(files.read_json(run.folder / PROCESS)["pid"]), signal.SIGKILL)
                killed += 1
    return {"runs killed": killed}


@dataclass
class Load:
    """Everybody who wants something of a server, and what came of it."""

    server: Server
    refs: Sequence[str]
    stop: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def ask(self) -> None:
        """Ask the tab, connecting anew after some answers."""
        client = None
        while not self.stop.is_set():
            if client is None or self.counts["answered"] % RECONNECT == 0:
                client = Client(self.server.url, verbose=False)
                self.counts["connections"] += 1
            *_, answer = client.predict("Hello there", api_name=f"/{TAB}")
            self.counts["answered"] += 1
            if answer["version"] not in (*self.refs, "base") and not answer["version"].startswith("more"):
                self.wrong.append(f"answered by {answer['version']}")

    def upload(self) -> None:
        """Upload a small file."""
        body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\ntext,label\r\n--b--\r\n'
        kind = {"Content-Type": "multipart/form-data; boundary=b"}
        while not self.stop.wait(UPLOAD_S):
            with urlopen(Request(f"{self.server.url}/gradio_api/upload", body, kind), timeout=PATIENCE_S) as answer:  # noqa: S310
                self.counts["uploads"] += answer.status == 200

    def swap(self) -> None:
        """Make one version live after the other."""
        store = AdapterStore(self.server.home)
        while not self.stop.wait(SWAP_S):
            store.promote(TAB, self.refs[self.counts["swaps"] % len(self.refs)])
            self.counts["swaps"] += 1

    def train(self) -> None:
        """Train one version after the other."""
        runs = Runs(Settings(home=self.server.home))
        while not self.stop.is_set():
            run = runs.submit(config_of(self.server.home, self.server.base, "more"))
            while runs.get(run.id).active and not self.stop.wait(1):
                pass
            self.counts[f"runs {runs.get(run.id).state}"] += 1

    def guarded(self, act: Callable[[], None]) -> Callable[[], None]:
        """`act`, whose failure is a request that was not answered."""

        def run() -> None:
            while not self.stop.is_set():
                try:
                    act()
                except Exception as error:
                    self.counts["unanswered"] += 1
                    self.wrong.append(f"{act.__name__}: {error!r}"[:300])

        return run


def soak(home: Path, base: Path, minutes: float, seed: int) -> list[dict[str, Any]]:
    """Load for so many minutes; a row for what was asked, and one for each figure of the server."""
    first = trained(home, base)
    server = Server(home, base)
    server.start()
    load = Load(server, [first, *(copied(home, first, f"other{i}") for i in range(3))])
    acts = (load.ask, load.ask, load.ask, load.upload, load.swap, load.train)
    threads = [threading.Thread(target=load.guarded(act), daemon=True) for act in acts]
    for thread in threads:
        thread.start()
    found = list(_sampled(server, 60 * minutes))
    load.stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    load.counts["unanswered"] += sum(thread.is_alive() for thread in threads)
    server.end(signal.SIGTERM)
    _end_runs(home)
    rows = [_compared(name, [one[name] for one in found]) for name in ("memory", "threads", "files")]
    return [
        {"what": "requests", **load.counts, "unanswered": load.counts["unanswered"], "first": load.wrong[:1]},
        *rows,
    ]


def _sampled(server: Server, seconds: float) -> Iterator[dict[str, float]]:
    stop = time.monotonic() + seconds
    while time.monotonic() < stop:
        time.sleep(SAMPLE_S)
        yield server.figures()


def _compared(name: str, values: Sequence[float]) -> dict[str, Any]:
    """The last third beside the second; the first is the warm-up."""
    third = max(1, len(values) // 3)
    before, after = statistics.median(values[third : 2 * third] or values), statistics.median(values[-third:])
    return {"what": name, "second third": before, "last third": after, "growth": round(after / before - 1, 4)}


def measure(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """What is asked for; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench soak", description=__doc__.split("\n")[0])
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="load, and what it does to a server")
    parser.add_argument("--kill", type=float, default=0.0, metavar="MINUTES", help="kills, and what is lost by them")
    parser.add_argument("--base", type=Path, help="a folder with a small base; one is made if none is given")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args(arguments)
    rows = list[dict[str, Any]]()
    for minutes, work in ((options.kill, kill), (options.soak, soak)):
        if minutes:
            with tempfile.TemporaryDirectory(prefix="graft-soak-", ignore_cleanup_errors=True) as folder:
                base = options.base
                if base is None:
                    from bench import tiny_base  # noqa: PLC0415 - transformers, of which who writes has no need

                    base = Path(folder) / "base"
                    tiny_base.main(base)
                (Path(folder) / "home").mkdir()
                rows += work(Path(folder) / "home", base, minutes, options.seed)
    return rows
