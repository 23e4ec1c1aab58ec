"""What a person waits for an answer while a run trains beside the page, and while none does."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gradio_client import Client

from bench.measure import alternate, ratio
from bench.people import percentile
from bench.servers import PATIENCE_S, serve_app
from bench.versions import Site
from settings import REPOSITORY
from training.config import TrainConfig
from training.events import read_events
from training.runs.runs import Runs

ENDLESS = 10**6
"""Steps: the run is cancelled when enough was asked."""
POLL_S = 0.1


def beside_training(site: Site, texts: Sequence[str], calls: int, rounds: int) -> list[dict[str, Any]]:
    """Alternate; median and 95th percentile of what one person waits through HTTP."""
    found: dict[str, list[float]] = {"alone": [], "beside a run": []}
    with serve_app(site, [site.spec.name], {site.spec.name: site.spec.model}) as app:
        client = app.client()
        _waits(client, site, texts, calls)  # the first pass of every length

        def alone() -> float:
            found["alone"] += (waits := _waits(client, site, texts, calls))
            return percentile(waits, 0.95)

        def beside() -> float:
            with training(site):
                found["beside a run"] += (waits := _waits(client, site, texts, calls))
            return percentile(waits, 0.95)

        last = alternate({"alone": alone, "beside a run": beside}, rounds)
    return [
        {
            "what": f"a call {name}",
            "median ms": round(1000 * statistics.median(found[name]), 1),
            "p95 ms": round(1000 * statistics.median(last[name]), 1),
            "p95 beside alone": str(ratio(last[name], last["alone"])) if name != "alone" else "",
        }
        for name in found
    ]


@contextmanager
def training(site: Site) -> Iterator[None]:
    """A run that is learning, as the page starts it, until the block ends."""
    data = REPOSITORY / "examples" / "tickets.csv"
    runs = Runs(site.settings)
    config = TrainConfig.for_tab(site.spec, data, "beside", max_steps=ENDLESS, held_out=0.1, evaluations=0)
    run = runs.submit(config)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not any(event["kind"] == "step" for event in read_events(run.folder)):
            if not runs.get(run.id).active or time.monotonic() > deadline:
                raise RuntimeError(f"The run does not train: {runs.get(run.id).result}")
            time.sleep(POLL_S)
        yield
        if not runs.get(run.id).active:
            raise RuntimeError(f"The run ended while it was measured: {runs.get(run.id).result}")
    finally:
        runs.cancel(run.id)


def _waits(client: Client, site: Site, texts: Sequence[str], calls: int) -> list[float]:
    waits = []
    for number in range(calls):
        started = time.perf_counter()
        client.predict(texts[number % len(texts)], adapter="live", api_name=f"/{site.spec.name}")
        waits.append(time.perf_counter() - started)
    return waits
