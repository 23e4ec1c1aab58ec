"""A server under requests, uploads, runs, swaps and reconnections: everybody is answered, and it does not grow."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest

from bench.bench_tab import republish
from bench.servers import PageServer, serve_app
from settings import Settings
from store.adapters import AdapterStore
from tests.helpers.generation_home import TAB, make_home, short_run
from tests.helpers.run_helpers import end_all
from tests.slow import size
from training.runs.runs import Runs

MINUTES = size("SOAK_MINUTES", 0.3)
LONG = 10
"""Minutes from which growth is judged: before, a server is still warming up."""
PATIENCE_S = 120
UPLOAD_S, SWAP_S, SAMPLE_S, RECONNECT = 5.0, 0.5, 1.0, 20
BODY = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\ntext,label\r\n--b--\r\n'


@dataclass
class Load:
    """Clients of a server, and the outcome of their requests."""

    server: PageServer
    home: Path
    refs: Sequence[str]
    stop: threading.Event = field(default_factory=threading.Event)
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def ask(self) -> None:
        """Ask the tab, connecting anew after some answers."""
        while not self.stop.is_set():
            client = self.server.client()
            self.counts["connections"] += 1
            for _ in range(RECONNECT):
                if self.stop.is_set():
                    return
                *_, by = client.predict("Hello there", api_name=f"/{TAB}")
                self.counts["answers"] += 1
                assert by["version"] in (*self.refs, "base") or by["version"].startswith("more"), by

    def upload(self) -> None:
        """Upload a small file."""
        url, kind = f"http://127.0.0.1:{self.server.port}/gradio_api/upload", "multipart/form-data; boundary=b"
        while not self.stop.wait(UPLOAD_S):
            with urlopen(Request(url, BODY, {"Content-Type": kind}), timeout=PATIENCE_S) as answer:
                assert answer.status == 200
            self.counts["uploads"] += 1

    def swap(self) -> None:
        """Promote one version after the other."""
        store = AdapterStore(self.home)
        while not self.stop.wait(SWAP_S):
            store.promote(TAB, self.refs[self.counts["swaps"] % len(self.refs)])
            self.counts["swaps"] += 1

    def train(self) -> None:
        """Train one version after the other."""
        runs = Runs(Settings(home=self.home))
        while not self.stop.is_set():
            run = runs.submit(short_run(self.home, "more"))
            while runs.get(run.id).active and not self.stop.wait(1):
                pass
            self.counts[f"runs {runs.get(run.id).state}"] += 1

    def repeat(self, act: Callable[[], None]) -> None:
        """Run an act until the end, recording each failure."""
        while not self.stop.is_set():
            try:
                act()
            except Exception as error:
                self.wrong.append(f"{act.__name__}: {error!r}"[:300])


def usage(pid: int) -> dict[str, float]:
    """Return resident bytes, threads and open files of a process."""
    process = psutil.Process(pid)
    return {"memory": process.memory_info().rss, "threads": process.num_threads(), "files": process.num_fds()}


def growth(values: Sequence[float]) -> float:
    """Return the share by which the last third lies above the second; the first is the warm-up."""
    third = max(1, len(values) // 3)
    return statistics.median(values[-third:]) / statistics.median(values[third : 2 * third] or values) - 1


@pytest.mark.slow
def test_r12_r19_r26_under_load_everybody_is_answered_and_nothing_grows(tmp_path: Path) -> None:
    home, first = make_home(tmp_path)
    store = AdapterStore(home)
    refs = [first, *(republish(store, store.get(first), f"other{i}").ref for i in range(3))]
    samples = []
    with serve_app(home, {TAB: str(home / "llama")}) as server:
        load = Load(server, home, refs)
        acts = (load.ask, load.ask, load.ask, load.upload, load.swap, load.train)
        threads = [threading.Thread(target=load.repeat, args=(act,), daemon=True) for act in acts]
        for thread in threads:
            thread.start()
        end = time.monotonic() + 60 * MINUTES
        while time.monotonic() < end:
            time.sleep(SAMPLE_S)
            samples.append(usage(server.pid))
        load.stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    end_all(Runs(Settings(home=home)))
    grown = {name: growth([sample[name] for sample in samples]) for name in ("memory", "threads", "files")}
    print(dict(load.counts), {name: f"{value:.1%}" for name, value in grown.items()})
    assert load.wrong == [] and not any(thread.is_alive() for thread in threads)
    assert load.counts["answers"] > 5 and load.counts["swaps"] > 3
    assert MINUTES < LONG or max(grown.values()) < 0.1


def test_growth_is_that_of_the_last_third() -> None:
    assert growth([50.0, *[100.0] * 3, *[103.0] * 3]) == pytest.approx(0.03)
