"""The memory that runs were expected to need, beside what they needed.

    python -m bench estimate

Each configuration is estimated as a user sees it, before anything is loaded, and then run for a few steps as a process
of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.measure import RUN, run_child
from bench.sized_base import ENCODER, FAMILIES, WRITER
from settings import LEAN, Settings
from tasks import Columns, TabSpec
from training.config import TrainConfig
from training.events import CONFIG, RESULT
from training.runs.runs import Runs

ROWS, STEPS, BATCH = 24, 2, 4
WITHIN = 0.25
"""What is near enough."""
TEXT = Path(__file__).resolve().parent.parent / "examples" / "notes.jsonl"


@dataclass(frozen=True)
class Trial:
    """One configuration: its base, the words of its rows, and what differs from the preset."""

    name: str
    base: str
    words: int
    chosen: dict[str, Any] = field(default_factory=dict)


TRIALS: Sequence[Trial] = (
    Trial("MiniLM, short rows", ENCODER, 20, {"batch_size": 16}),
    Trial("MiniLM, 512 tokens, rank 32", ENCODER, 450, {"max_length": 512, "rank": 32}),
    Trial("BERT 768", "bert", 100),
    Trial("SmolLM2, 60 words", WRITER, 60),
    Trial("Qwen2 896, 600 words", "qwen2", 600, {"max_length": 1024, "batch_size": 2}),
    Trial("GPT-2 768", "gpt2", 150),
    Trial("T5 512", "t5", 200),
    Trial("MiniLM, 4bit", ENCODER, 60, {"quantize": "4bit"}),
    Trial("DistilBERT 768, 2,048 at once", "distilbert", 200, {"micro_batch_tokens": 2048, "batch_size": 8}),
    Trial("SmolLM2, 300 words", WRITER, 300, {"max_length": 512, "batch_size": 2, "max_steps": 1}),
    Trial("SmolLM2, 300 words, checkpointing", WRITER, 300,
          {"max_length": 512, "gradient_checkpointing": "on", "batch_size": 2, "max_steps": 1}),
    Trial("Qwen2 896, 8bit", "qwen2", 60, {"quantize": "8bit"}),
    Trial("SmolLM2, 4bit, no evaluation", WRITER, 60, {"quantize": "4bit", "evaluations": 0, "max_steps": 1}),
    Trial("MiniLM, DoRA, 100 words", ENCODER, 100, {"use_dora": True, "batch_size": 16}),
    Trial("SmolLM2, packing, rank 16", WRITER, 60, {"packing": True, "rank": 16}),
)  # fmt: skip


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Estimate and run each; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench estimate")
    parser.add_argument("only", nargs="*", help="words of the names of those to run; all of them, unless given")
    options = parser.parse_args(arguments)
    chosen = [trial for trial in TRIALS if not options.only or any(word in trial.name for word in options.only)]
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        return [*_measure(Path(folder), chosen)]


def _measure(folder: Path, trials: Sequence[Trial]) -> Iterator[dict[str, Any]]:
    near = []
    for number, trial in enumerate(trials):
        found = _once(folder, folder / str(number), trial)
        near.append(abs(found["ratio"] - 1) <= WITHIN)
        print(found, file=sys.stderr, flush=True)
        yield found
    print(f"Memory within {WITHIN:.0%} in {sum(near)} of {len(near)}.", file=sys.stderr)


def _once(shared: Path, home: Path, trial: Trial) -> dict[str, Any]:
    """One configuration, estimated and run; its row."""
    home.mkdir()
    (home / "models").symlink_to(Settings.from_env().home.absolute() / "models")
    config = _config(home, trial, _base(shared, trial.base))
    plan = Runs(Settings(home=home)).plan(config)
    if plan is None:
        raise RuntimeError(f"{trial.name} could not be estimated.")
    expected = plan.estimate()
    folder = home / "runs" / "bench"
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    child = run_child([*RUN, str(folder)], **LEAN, GRAFT_HOME=str(home))
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    own = result["estimate"]
    shutil.rmtree(home)
    return {
        "run": trial.name,
        "estimated GB": round(expected.peak / 1e9, 2),
        "by its rows": round(own["peak"] / 1e9, 2),
        "true GB": round(child.peak_bytes / 1e9, 2),
        "ratio": round(expected.peak / child.peak_bytes, 2),
        "parts GB": " ".join(f"{name}:{size / 1e9:.2f}" for name, size in own["memory"].items() if size > 1e7),
    }


def _base(shared: Path, name: str) -> str:
    """A base that there is, or one of that family, made once."""
    if name not in FAMILIES:
        return name
    folder = shared / name
    if not folder.exists():
        run_child([sys.executable, "-m", "bench.sized_base", name, str(folder)])
    return str(folder)


def _config(home: Path, trial: Trial, base: str) -> TrainConfig:
    labels = trial.base in (ENCODER, "bert", "distilbert")
    columns = Columns("text", "label") if labels else Columns("text", "summary")
    task = "text-classification" if labels else "causal-lm"
    spec = TabSpec("bench", base, task, columns, "" if labels else "Sum up:\n\n{text}")
    data = home / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in _rows(trial.words, labels)), encoding="utf-8")
    return TrainConfig.for_tab(
        spec, data, "bench", **{"max_steps": STEPS, "batch_size": BATCH, "evaluations": 1, **trial.chosen}
    )


def _rows(words: int, labels: bool) -> Iterator[dict[str, str]]:
    """Rows of half to one and a half times so many words, and answers of a sixth of them."""
    chance = np.random.default_rng(0)
    known = sorted(set(TEXT.read_text(encoding="utf-8").split()))
    for number in range(ROWS):
        text = " ".join(chance.choice(known, int(words * chance.uniform(0.5, 1.5))))
        answer = " ".join(chance.choice(known, max(4, words // 6)))
        yield {"text": text, "label": f"label {number % 4}"} if labels else {"text": text, "summary": answer}
