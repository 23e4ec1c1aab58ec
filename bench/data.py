"""A large JSONL file, inspected and prepared for training: seconds and peak memory, beside `datasets` on the same file.

    python -m bench data --gb 2

Each measurement is a process of its own. `first` begins with nothing kept, `again` finds what `first` left. Ours are
the command that the page reports with, and whole runs of four steps on a base of random weights: their seconds are
those of the data, their memory and processor time those of the whole run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import RUN, Child, alternate, ratio, run_child
from store import processes
from tasks import Columns, TabSpec
from training.config import TrainConfig
from training.data.inspect.inspect_client import Inspection
from training.events import CONFIG, EVENTS

PROMPT = "Summarize this text in one or two sentences.\n\n{text}"
BLOCK = 100
"""Rows that are made at a time."""


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Make the file and measure; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench data")
    parser.add_argument("--gb", type=float, default=0.2, help="size of the file")
    parser.add_argument("--rounds", type=int, default=1, help="rounds that begin with nothing kept")
    parser.add_argument("--folder", type=Path, help="where the file and the caches lie for a while")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graft-bench-", dir=options.folder) as folder:
        return _measure(Path(folder), int(options.gb * 1e9), options.rounds)


def write_rows(path: Path, size: int, words: Sequence[str], seed: int = 0) -> int:
    """Write about `size` bytes of rows with `text` and `summary`; returns how many rows.

    Words come by Zipf's law and lengths vary threefold, so that tokens and rows are about as long as those of prose.
    """
    chance = np.random.default_rng(seed)
    share = 1 / np.arange(10, len(words) + 10)
    edges = np.cumsum(share / share.sum())
    rows = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            lengths = chance.integers(40, 120, BLOCK)
            ends = np.cumsum(lengths + 12)
            drawn = np.searchsorted(edges, chance.random(ends[-1]))
            text = [words[min(i, len(words) - 1)] for i in drawn]
            for length, end in zip(lengths.tolist(), ends.tolist(), strict=True):
                row = {"text": " ".join(text[end - length - 12 : end - 12]), "summary": " ".join(text[end - 12 : end])}
                file.write(json.dumps(row) + "\n")
            rows += BLOCK
    return rows


def _measure(folder: Path, size: int, rounds: int) -> list[dict[str, Any]]:
    base, file, held_out = folder / "base", folder / "rows.jsonl", folder / "held_out.jsonl"
    run_child([sys.executable, "-m", "bench.tiny_base", str(base)])
    rows = write_rows(file, size, _words(base))
    write_rows(held_out, 1, _words(base)[::-1])
    made = f"{file.stat().st_size / 1e9:.2f} GB, {rows:,} rows"
    found: dict[str, list[Child]] = {}

    def timed(name: str, measure: Callable[[Path], tuple[Child, float]]) -> Callable[[], float]:
        def once() -> float:
            kept = folder / name.split()[0] / str(len(found.get(name, ())))
            child, seconds = measure(kept)
            found.setdefault(name, []).append(child)
            return seconds

        return once

    def ours(kept: Path) -> tuple[Child, float]:
        return _train(file, held_out, base, kept)

    def theirs(kept: Path) -> tuple[Child, float]:
        kept.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "bench.peers.datasets_map", str(file), str(base), str(kept), PROMPT]
        child = run_child(command, HF_HOME=str(kept))
        return child, float(child.output.split()[-2])

    measured = {"inspect": timed("inspect", lambda kept: _inspect(file))}
    seconds = {"inspect": [measured["inspect"]()]}
    for when in ("first", "again"):
        pair = {f"graft {when}": timed(f"graft {when}", ours), f"datasets {when}": timed(f"datasets {when}", theirs)}
        seconds |= alternate(pair, rounds)
    return [{"what": name, "data": made, **_figures(name, seconds, children)} for name, children in found.items()]


def _figures(name: str, seconds: dict[str, list[float]], children: Sequence[Child]) -> dict[str, Any]:
    return {
        "seconds": round(statistics.median(seconds[name]), 1),
        "against datasets": _against(name, seconds),
        "processor s": round(statistics.median(child.processor_seconds for child in children), 1),
        "peak GB": round(max(child.peak_bytes for child in children) / 1e9, 2),
    }


def _against(name: str, seconds: dict[str, list[float]]) -> str:
    """The ratio of our seconds to the peer's, where there is a peer."""
    peer = name.replace("graft", "datasets")
    return str(ratio(seconds[name], seconds[peer])) if peer != name else ""


def _words(base: Path) -> list[str]:
    """The whole English words of the tokenizer, the commonest first."""
    vocabulary: dict[str, int] = json.loads((base / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted((number, token[1:]) for token, number in vocabulary.items() if token[0] == "Ġ")
    return [word for _, word in words if word.isascii() and word.isalpha() and word.islower()]


def _inspect(file: Path) -> tuple[Child, float]:
    spec = TabSpec("bench", "", "causal-lm", Columns(text="text", target="summary"))
    child = run_child(processes.python("training.data.inspect", Inspection(file, spec).to_json()))
    return child, child.seconds


def _train(file: Path, held_out: Path, base: Path, home: Path) -> tuple[Child, float]:
    """One run of four steps; its seconds are those of the phase of data."""
    config = TrainConfig(
        name="bench", plugin="bench", model=str(base), task="causal-lm", data=str(file), prompt=PROMPT, max_steps=4,
        columns={"text": "text", "target": "summary"}, batch_size=4, max_length=512, card_rows=0,
        held_out_data=str(held_out),
    )  # fmt: skip
    home.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=home))
    (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    child = run_child([*RUN, str(folder)], GRAFT_HOME=str(home))
    events = [json.loads(line) for line in (folder / EVENTS).read_text(encoding="utf-8").splitlines()]
    at = {event["phase"]: event["at"] for event in events if event["kind"] == "phase"}
    return child, at["model"] - at["data"]
