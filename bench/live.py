"""From the click on Train to the first answer of the new version, beside a script that trains, saves, and starts anew.

    python -m bench live --rounds 5

Ours is the app itself, up and answering before the clock starts, because it always is: a run is queued as the page
queues it, and the tab is asked over HTTP until its answer names the new version. The clock of the peer starts with its
script, and stops with the first answer of the process that is started after it. Same rows, rank, learning rate, batch
and epochs, a seed a round; that Graft also compares the version with what answered before, and the peer does not, is
part of what is compared. The version that ships with Graft, which learned from thousands of such rows,
is better than one of a few hundred, so the gate leaves the new one to a person; the benchmark is that person, at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from gradio_client import Client

from bench.measure import alternate, ratio, run_child
from bench.servers import HOST, Server, serving
from bench.snippets import read_snippets, split_snippets
from bench.train import MINILM
from models.resolve import ModelStore
from settings import Settings, child_environment
from store.adapters import AdapterStore
from tasks import Columns, TabSpec
from training.config import TrainConfig
from training.events import read_events
from training.runs.runs import Runs

SHARED: Mapping[str, Any] = {"rank": 16, "alpha": 32.0, "learning_rate": 2e-3, "batch_size": 16, "epochs": 3.0,
                             "max_steps": 0}  # fmt: skip
HELD_OUT = 0.1
ASKED = 100
"""Other rows that both are asked when the clock has stopped: a wrong answer is none."""
PATIENCE_S = 600.0
POLL_S = 0.1
LABELS = ["negative", "positive"]

Found = dict[str, Any]


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Alternate; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench live")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=500)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as name:
        folder, models = Path(name), Settings.from_env().home.absolute() / "models"
        train, other = split_snippets(read_snippets())
        rows = _Rows(folder, train[: options.rows], other[:ASKED], models)
        with _app(folder / "home", models) as client:
            return _compare(rows, client, options.rounds)


@dataclass(frozen=True)
class _Rows:
    """What is trained on and what is asked, and where all of it lies."""

    folder: Path
    train: Sequence[tuple[str, str]]
    asked: Sequence[tuple[str, str]]
    models: Path

    def right(self, answers: Sequence[str]) -> float:
        """The share of the answers that is right."""
        return statistics.mean(answer == label for answer, (_, label) in zip(answers, self.asked, strict=True))


def _compare(rows: _Rows, client: Client, rounds: int) -> list[dict[str, Any]]:
    found: dict[str, list[Found]] = {"stock": [], "graft": []}

    def stock() -> float:
        found["stock"].append(_stock(rows, len(found["stock"])))
        return float(found["stock"][-1]["seconds"])

    def graft() -> float:
        found["graft"].append(_graft(rows, client, len(found["graft"])))
        return float(found["graft"][-1]["seconds"])

    seconds = alternate({"stock": stock, "graft": graft}, rounds)
    return [
        {
            "what": name,
            "seconds": round(statistics.median(seconds[name]), 1),
            "beside stock": str(ratio(seconds[name], seconds["stock"])) if name == "graft" else "",
            **{part: round(statistics.median(one[part] for one in found[name]), 1) for part in PARTS},
            "accuracy": round(statistics.mean(one["accuracy"] for one in found[name]), 3),
        }
        for name in ("stock", "graft")
    ]


PARTS = ("until it trains", "training", "until it answers")
"""What the seconds are made of."""


def _found(at: Sequence[float], accuracy: float) -> Found:
    """From the times of the start, of the first and the last step, and of the answer."""
    parts = [later - earlier for earlier, later in pairwise(at)]
    return {"seconds": at[-1] - at[0], **dict(zip(PARTS, parts, strict=True)), "accuracy": accuracy}


def _stock(rows: _Rows, seed: int) -> Found:
    trained, asked = (
        [{"text": text, "label": label} for text, label in some]
        # As many as Graft trains on, and no held-out rows to look at.
        for some in (rows.train[: round(len(rows.train) * (1 - HELD_OUT))], rows.asked)
    )
    base = ModelStore(rows.models, offline=True).resolve(MINILM)
    job = {**SHARED, "base": str(base.path), "folder": str(rows.folder / "stock"), "seed": seed, "labels": LABELS,
           "train": trained, "held_out": asked}  # fmt: skip
    path = rows.folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    started = time.time()
    first, second = (_last(run_child([sys.executable, "-m", "bench.peers.stock_live", act, str(path)]).output)
                     for act in ("train", "answer"))  # fmt: skip
    return _found([started, first["began"], first["trained"], second["answered"]], rows.right(second["answers"]))


def _last(output: str) -> Found:
    found: Found = json.loads(output.strip().splitlines()[-1])
    return found


def _graft(rows: _Rows, client: Client, seed: int) -> Found:
    data = rows.folder / "rows.csv"
    with data.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows.train])
    spec = TabSpec("classification", MINILM, "text-classification", Columns(text="text", target="label"))
    settings = replace(Settings.from_env(), home=rows.folder / "home")
    runs, store = Runs(settings), AdapterStore(settings.home, settings.shipped)
    # Another seed is another split, so that nothing of it was prepared before.
    config = TrainConfig.for_tab(spec, data, f"bench-{seed}", promote=True, held_out=HELD_OUT, seed=seed, **SHARED)
    started = time.time()
    id = runs.submit(config).id
    try:
        run = runs.wait(id, POLL_S)
        if run.version is None:
            raise RuntimeError(f"The run published nothing: {run.result}")
        if not run.result.get("promoted"):
            store.promote(spec.name, run.version, "The gate left it to a person.", "bench live")
        answered = _wait_for(client, run.version, rows.asked[0][0])
    finally:
        runs.cancel(id)
    at = [event["at"] for event in read_events(run.folder) if event["kind"] == "step" or event.get("phase") == "train"]
    answers = [_ask(client, text)[0] for text, _ in rows.asked]
    return _found([started, at[0], at[-1], answered], rows.right(answers))


def _wait_for(client: Client, version: str, text: str) -> float:
    """When the tab's answer to `text` named that version."""
    deadline = time.time() + PATIENCE_S
    while time.time() < deadline:
        if _ask(client, text)[1] == version:
            return time.time()
        time.sleep(POLL_S)
    raise RuntimeError(f"{version} is live and does not answer.")


def _ask(client: Client, text: str) -> tuple[str, str]:
    """(label, version) of the tab's answer."""
    answer, by = client.predict(text, adapter="live", api_name="/classification")
    return str(answer["label"]), str(by["version"])


@contextmanager
def _app(home: Path, models: Path) -> Iterator[Client]:
    """The app on a free port, when it answers."""
    home.mkdir(parents=True)
    (home / "models").symlink_to(models)
    environment = child_environment(GRAFT_HOME=str(home), GRAFT_HOST=HOST)
    with serving([sys.executable, "app.py"], environment, "GRAFT_PORT") as server:
        yield _answering(server)


def _answering(server: Server) -> Client:
    """A connection, once the tab's base is there."""
    client, deadline = server.client(), time.time() + PATIENCE_S
    while time.time() < deadline:
        with suppress(Exception):  # its base is still loading
            _ask(client, "A fine film.")
            return client
        time.sleep(POLL_S)
    raise RuntimeError("The app does not answer.")
