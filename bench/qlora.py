"""QLoRA beside PEFT, bitsandbytes and the Trainer: the same NF4 base, rows, rank, learning rate and batch.

Part of `python -m bench gpu`. Rows are nearly as long as the longest that is allowed, as packing makes them.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.measure import RUN, alternate, ratio, run_child
from bench.train import labelled
from models.chat_template import encode
from models.resolve import ModelStore
from models.tokenizer import load_tokenizer
from process_setup import RUN_ENVIRONMENT
from settings import REPOSITORY
from training.config import TrainConfig
from training.events import CONFIG, RESULT

SHARED: dict[str, Any] = {"rank": 16, "alpha": 32.0, "learning_rate": 1e-4, "batch_size": 4}
HELD_OUT = 4
Found = dict[str, float]
Row = list[dict[str, str]]


def compare(base: Path, folder: Path, rows: int, length: int, rounds: int) -> list[dict[str, Any]]:
    """Alternate; the rows of the table."""
    tokenizer = load_tokenizer(ModelStore(folder, offline=True).resolve(str(base)))
    made = make_rows(tokenizer, rows + HELD_OUT, length)
    held, train = made[:HELD_OUT], made[HELD_OUT:]
    encoded = [[labelled(tokenizer, row) for row in some] for some in (train, held)]
    tokens = sum(len(row["input_ids"]) for row in encoded[0])
    paths = [_write(folder / f"{name}.jsonl", some) for name, some in (("train", train), ("held_out", held))]
    found: dict[str, list[Found]] = {"stock": [], "graft": []}

    def speed(name: str, once: Callable[[], Found]) -> Callable[[], float]:
        def measure() -> float:
            found[name].append(once())
            return tokens / found[name][-1]["seconds"]

        return measure

    speeds = alternate({
        "stock": speed("stock", lambda: _stock(base, folder, encoded)),
        "graft": speed("graft", lambda: _graft(base, folder, paths, length)),
    }, rounds)  # fmt: skip
    peaks = {name: [one["peak"] / 1e9 for one in some] for name, some in found.items()}
    return [
        {
            "what": f"QLoRA, {rows} rows of {length} tokens: {name}",
            "tokens a second": round(statistics.median(speeds[name]), 1),
            "beside stock": str(ratio(speeds[name], speeds["stock"])) if name == "graft" else "",
            "peak GB": round(statistics.median(peaks[name]), 2),
            "memory beside stock": str(ratio(peaks[name], peaks["stock"])) if name == "graft" else "",
            "held-out loss": round(statistics.mean(one["loss"] for one in found[name]), 4),
        }
        for name in found
    ]


def make_rows(tokenizer: Any, count: int, length: int) -> list[Row]:  # noqa: ANN401
    """Conversations of one turn, of words drawn from the example notes: as many as fit into `length` tokens."""
    notes = [json.loads(line)["text"] for line in (REPOSITORY / "examples" / "notes.jsonl").read_text().splitlines()]
    words, dice = " ".join(notes).split(), random.Random(0)
    found = []
    for number in range(count):
        chosen = dice.choices(words, k=length)
        while len(encode(tokenizer, row := _row(number, chosen))[0]) > length:
            chosen = chosen[: len(chosen) - max(1, len(chosen) // 50)]
        found.append(row)
    return found


def _row(number: int, words: Sequence[str]) -> Row:
    return [{"role": "user", "content": f"Note {number}?"}, {"role": "assistant", "content": " ".join(words)}]


def _write(path: Path, rows: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
    return path


def _stock(base: Path, folder: Path, encoded: Sequence[Any]) -> Found:
    job = folder / "job.json"
    train, held = encoded
    job.write_text(json.dumps({**SHARED, "base": str(base), "folder": str(folder / "stock"), "train": train,
                               "held_out": held}), encoding="utf-8")  # fmt: skip
    child = run_child([sys.executable, "-m", "bench.peers.stock_qlora", str(job)])
    return dict(json.loads(child.output.strip().splitlines()[-1]))


def _graft(base: Path, folder: Path, paths: Sequence[Path], length: int) -> Found:
    home = Path(tempfile.mkdtemp(dir=folder))
    run = home / "runs" / "bench"
    run.mkdir(parents=True)
    config = TrainConfig(
        name="bench", plugin="bench", model=str(base), task="causal-lm", columns={"messages": "messages"},
        data=str(paths[0]), held_out_data=str(paths[1]), quantize="4bit", epochs=1.0, max_length=length, evaluations=0,
        card_rows=0, gradient_checkpointing="on", **SHARED,
    )  # fmt: skip
    (run / CONFIG).write_text(config.to_json(), encoding="utf-8")
    run_child([*RUN, str(run)], **RUN_ENVIRONMENT, GRAFT_HOME=str(home))
    result = json.loads((run / RESULT).read_text(encoding="utf-8"))
    manifest = json.loads((home / "adapters" / "bench" / "1" / "manifest.json").read_text(encoding="utf-8"))
    measured = manifest["measured"]
    return {"seconds": measured["seconds"], "peak": measured["peak_memory"], "loss": result["card"]["new"]["loss"]}
