"""Training beside the stock recipe (PEFT and the Trainer): speed, memory, and what the held-out rows say afterwards.

    python -m bench train --rounds 5

The same rows, rank, learning rate, batch and epochs; each run is a process of its own, in alternating rounds, a seed a
round. Ours are whole runs of the worker, of which the training loop is compared. `quantized` compares Graft on an NF4
base with Graft on a plain one.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from bench.measure import RUN, alternate, ratio, run_child
from bench.snippets import read_snippets, split_snippets
from models.chat_template import encode
from models.resolve import Model, ModelStore
from models.tokenizer import load_tokenizer
from process_setup import RUN_ENVIRONMENT
from settings import REPOSITORY, Settings
from training.config import TrainConfig
from training.events import CONFIG, RESULT

MINILM, SMOLLM = "sentence-transformers/all-MiniLM-L6-v2", "HuggingFaceTB/SmolLM2-135M-Instruct"
CHATS = REPOSITORY / "examples" / "voice.jsonl"


@dataclass
class Case:
    """One comparison: the configuration of ours, and what the peer is given besides."""

    name: str
    config: dict[str, Any]
    model: Model
    peer: dict[str, Any]
    figure: str
    units: int
    """Rows or tokens that one run learns from."""
    found: dict[str, list[Mapping[str, float]]] = field(default_factory=dict)


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Measure what is asked for; the rows of the table."""
    parser = argparse.ArgumentParser("python -m bench train")
    parser.add_argument("what", nargs="*", choices=[[], *CASES], default=[], help="all of them, unless named")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows, for a first look")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        return [
            row for what in options.what or CASES for row in CASES[what](Path(folder), options.rounds, options.share)
        ]


def _against_stock(make: Callable[[Path, float], Case]) -> Callable[[Path, int, float], list[dict[str, Any]]]:
    def measure(folder: Path, rounds: int, share: float) -> list[dict[str, Any]]:
        case = make(folder, share)
        return _compare(case, rounds, {"stock": lambda seed: _stock(case, folder, seed),
                                       "graft": lambda seed: _graft(case, folder, seed)})  # fmt: skip

    return measure


def _quantized(folder: Path, rounds: int, share: float) -> list[dict[str, Any]]:
    case = _classification(folder, share)
    case.name = "quantized"
    # At twice that, which a plain MiniLM bears, one of three runs on an NF4 one stops learning: NF4 moves what so small
    # a base says by a fifth.
    case.config["learning_rate"] = 1e-3
    return _compare(case, rounds, {"none": lambda seed: _graft(case, folder, seed),
                                   "4bit": lambda seed: _graft(case, folder, seed, quantize="4bit")})  # fmt: skip


def _compare(
    case: Case, rounds: int, contenders: Mapping[str, Callable[[int], Mapping[str, float]]]
) -> list[dict[str, Any]]:
    """Alternate, then the figures of each and of the second beside the first."""
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in contenders}

    def speed(name: str) -> Callable[[], float]:
        def once() -> float:
            found[name].append(contenders[name](len(found[name])))
            return case.units / found[name][-1]["seconds"]

        return once

    speeds = alternate({name: speed(name) for name in contenders}, rounds)
    first, second = contenders
    memory = {name: [run["peak"] / 1e9 for run in runs] for name, runs in found.items()}
    values = {name: [run[case.figure] for run in runs] for name, runs in found.items()}
    return [
        {
            "what": f"{case.name}: {name}",
            "a second": round(statistics.median(speeds[name]), 1),
            f"beside {first}": str(ratio(speeds[name], speeds[first])) if name == second else "",
            "peak GB": round(statistics.median(memory[name]), 2),
            "memory ratio": str(ratio(memory[name], memory[first])) if name == second else "",
            f"held-out {case.figure}": _spread(values[name]),
            **({"base MB": round(found[name][0]["base"] / 1e6, 1)} if "base" in found[first][0] else {}),
        }
        for name in contenders
    ]


def _spread(values: Sequence[float]) -> str:
    """The mean over the seeds, with the least and the most."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _stock(case: Case, folder: Path, seed: int) -> dict[str, float]:
    shared = {key: case.config[key] for key in ("rank", "alpha", "learning_rate", "batch_size", "epochs", "max_steps")}
    job = {**shared, **case.peer, "base": str(case.model.path), "folder": str(folder / "stock"), "seed": seed}
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    child = run_child([sys.executable, "-m", "bench.peers.stock_training", str(path)])
    measured: dict[str, float] = json.loads(child.output.strip().splitlines()[-1])
    return measured


def _graft(case: Case, folder: Path, seed: int, **chosen: Any) -> dict[str, float]:  # noqa: ANN401
    home = Path(tempfile.mkdtemp(dir=folder))
    (home / "models").symlink_to(Settings.from_env().home.absolute() / "models")
    run_folder = home / "runs" / "bench"
    run_folder.mkdir(parents=True)
    config = TrainConfig(**case.config, **chosen, seed=seed)
    (run_folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    run_child([*RUN, str(run_folder)], **RUN_ENVIRONMENT, GRAFT_HOME=str(home))
    result = json.loads((run_folder / RESULT).read_text(encoding="utf-8"))
    manifest = json.loads((home / "adapters" / "bench" / "1" / "manifest.json").read_text(encoding="utf-8"))
    measured = manifest["measured"]
    figure = result["card"]["new"][case.figure]
    return {
        "seconds": measured["seconds"],
        "peak": measured["peak_memory"],
        "base": measured["base_memory"],
        case.figure: figure,
    }


def _config(
    data: Path,
    held_out: Path,
    model: str,
    task: str,
    columns: dict[str, str],
    **chosen: Any,  # noqa: ANN401
) -> dict[str, Any]:
    return {"name": "bench", "plugin": "bench", "model": model, "task": task, "columns": columns, "data": str(data),
            "held_out_data": str(held_out), "evaluations": 0, "card_rows": 0, "max_steps": 0, **chosen}  # fmt: skip


def _resolve(model: str) -> Model:
    settings = Settings.from_env()
    return ModelStore(settings.home.absolute() / "models", settings.offline).resolve(model)


def _classification(folder: Path, share: float) -> Case:
    """MiniLM, 2,000 snippets of film reviews, two epochs; 1,500 others held out."""
    train, held_out = split_snippets(read_snippets())
    train, held_out = train[: int(2000 * share)], held_out[: int(1500 * share)]
    paths = folder / "train.csv", folder / "held_out.csv"
    for path, rows in zip(paths, (train, held_out), strict=True):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    config = _config(*paths, MINILM, "text-classification", {"text": "text", "target": "label"}, rank=16, alpha=32.0,
                     learning_rate=2e-3, batch_size=16, epochs=2.0, max_length=256)  # fmt: skip
    named = [[{"text": text, "label": label} for text, label in rows] for rows in (train, held_out)]
    peer = {"labels": ["negative", "positive"], "train": named[0], "held_out": named[1]}
    return Case("classification", config, _resolve(MINILM), peer, "accuracy", 2 * len(train))


def _generation(folder: Path, share: float) -> Case:
    """SmolLM2 and chats of one to four turns, strung together from the example chats."""
    chance = random.Random(0)
    turns = [json.loads(line)["messages"] for line in CHATS.read_text(encoding="utf-8").splitlines()]
    turns = [[turn for turn in chat if turn["role"] != "system"] for chat in turns]
    held, kept = turns[:20], turns[20:]
    # Each chat once: Graft leaves repeated rows out.
    chats = [kept[i] for i in chance.sample(range(len(kept)), int(26 * share))]
    chats += [list(chain(*chance.sample(kept, chance.choice((2, 3, 4))))) for _ in range(int(38 * share))]
    paths = folder / "chats.jsonl", folder / "held_chats.jsonl"
    for path, rows in zip(paths, (chats, held), strict=True):
        path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    model = _resolve(SMOLLM)
    tokenizer = load_tokenizer(model)
    encoded = [[labelled(tokenizer, chat) for chat in rows] for rows in (chats, held)]
    config = _config(*paths, SMOLLM, "causal-lm", {"messages": "messages"}, rank=8, alpha=16.0, learning_rate=5e-4,
                     batch_size=4, epochs=1.0, max_length=1024)  # fmt: skip
    tokens = sum(len(row["input_ids"]) for row in encoded[0])
    peer = {"labels": [], "train": encoded[0], "held_out": encoded[1]}
    return Case("generation", config, model, peer, "loss", tokens)


def labelled(tokenizer: Any, chat: Sequence[Mapping[str, str]]) -> dict[str, list[int]]:  # noqa: ANN401
    """Token ids of a conversation, and labels where something is learned."""
    ids, learned = encode(tokenizer, chat)
    labels = [token if any(a <= i < b for a, b in learned) else -100 for i, token in enumerate(ids)]
    return {"input_ids": ids, "labels": labels, "attention_mask": [1] * len(ids)}


CASES: Mapping[str, Callable[[Path, int, float], list[dict[str, Any]]]] = {
    "classification": _against_stock(_classification),
    "generation": _against_stock(_generation),
    "quantized": _quantized,
}
