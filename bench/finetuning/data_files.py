"""A large JSONL file, inspected and prepared for training: seconds and peak memory, beside `datasets` on the same file.

    python -m bench data --gb 2            the file and the caches lie below TMPDIR for a while

Each measurement is a process of its own. `first` begins with nothing kept, `again` finds the results of `first`. Ours
are the command behind the page's report, and whole runs of four steps on a tiny base: their seconds are those of the
data, their memory and processor time those of the whole run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from bench import measure
from bench.measure import Figures, ProcessUsage, Row, run_child
from store import processes
from tasks import Columns, TabSpec
from training.config import TrainConfig
from training.data.inspect.inspect_client import Inspection
from training.events import read_events

PROMPT = "Summarize this text in one or two sentences.\n\n{text}"
BLOCK = 100
"""Rows that are made at a time."""


def run(arguments: Sequence[str], folder: Path) -> list[Row]:
    """Make the file and measure."""
    options = measure.parse(__doc__, arguments, gb=0.2, rounds=1)
    base, file, held_out = folder / "base", folder / "rows.jsonl", folder / "held_out.jsonl"
    run_child([sys.executable, "-m", "bench.random_bases", str(base)])
    rows = write_rows(file, int(options.gb * 1e9), _words(base))
    write_rows(held_out, 1, _words(base)[::-1])
    spec = TabSpec("generation", str(base), "causal-lm", Columns(text="text", target="summary"), PROMPT)
    short = partial(TrainConfig.for_tab, max_steps=4, batch_size=4, max_length=512, card_rows=0)
    config = short(spec, file, "bench", held_out_data=str(held_out))

    def inspect(_: int) -> Figures:
        alone = TabSpec("bench", "", "causal-lm", Columns(text="text", target="summary"))
        usage = run_child(processes.python("training.data.inspect", Inspection(file, alone).to_json()))
        return _figures(usage.seconds, usage)

    def graft(number: int) -> Figures:
        run, usage = measure.run_training(config, folder / f"graft-{number}")
        at = {event["phase"]: event["at"] for event in read_events(run) if event["kind"] == "phase"}
        return _figures(at["model"] - at["data"], usage)

    def datasets(number: int) -> Figures:
        cache = str(folder / f"datasets-{number}")
        command = [sys.executable, "-m", "bench.peers.datasets_map", str(file), str(base), cache, PROMPT]
        usage = run_child(command, measure.peer_environment(HF_HOME=cache))
        return _figures(usage.result["seconds"], usage)

    measured = measure.alternate({"inspect": inspect}, 1)
    for when in ("first", "again"):  # a round has the same folder both times
        measured |= measure.alternate({f"graft {when}": graft, f"datasets {when}": datasets}, options.rounds)
    made = f"{file.stat().st_size / 1e9:.2f} GB, {rows:,} rows"
    peers = {f"graft {when}": f"datasets {when}" for when in ("first", "again")}
    return [{**row, "data": made} for row in measure.summarize(measured, peers, ["seconds", "peak GB"])]


def _figures(seconds: float, usage: ProcessUsage) -> Figures:
    return {"seconds": seconds, "processor s": usage.processor_seconds, "peak GB": usage.peak_bytes / 1e9}


def write_rows(path: Path, size: int, words: Sequence[str]) -> int:
    """Write about `size` bytes of rows with `text` and `summary`; returns how many rows.

    Words come by Zipf's law and lengths vary threefold, so that tokens and rows are about as long as those of prose.
    """
    chance, share, rows = np.random.default_rng(0), 1 / np.arange(10, len(words) + 10), 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            drawn = chance.choice(words, (BLOCK, 132), p=share / share.sum()).tolist()
            for row, end in zip(drawn, chance.integers(52, 132, BLOCK).tolist(), strict=True):
                file.write(json.dumps({"text": " ".join(row[12:end]), "summary": " ".join(row[:12])}) + "\n")
            rows += BLOCK
    return rows


def _words(base: Path) -> list[str]:
    """Return the whole English words of the tokenizer, the commonest first."""
    vocabulary: dict[str, int] = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted((number, token[1:]) for token, number in vocabulary.items() if token[0] == "Ġ")
    return [word for _, word in words if word.isascii() and word.isalpha() and word.islower()]
