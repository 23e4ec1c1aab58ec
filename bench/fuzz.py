"""Damaged files and odd names, by the thousand: nothing but errors in words leaves the code that reads them.

    python -m bench fuzz --seconds 600 --seed 1

Each case is a good file with bytes flipped, cut, repeated or put in, or a name made of odd parts. Whatever raises
something else than a `GraftError` is written to bench/results/fuzz/, and named by its seed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

from errors import GraftError
from models.adapter_check import read_adapter
from models.preflight import check_model
from settings import Settings
from store.adapters import WEIGHTS, AdapterStore
from store.corrections import Corrections
from tasks import Columns
from training.config import TrainConfig
from training.data.files.formats import Limits
from training.data.files.hub_dataset import parse_place
from training.data.table import read_table
from training.runs.runs import Runs

FOUND = Path(__file__).resolve().parent / "results" / "fuzz"
LIMITS = Limits(file_bytes=10**7, rows=10**5, decoded_bytes=10**7)
LAYERS = {f"layer.{i}.query": (8, 8) for i in range(2)}
ODD = (
    "..", "/", "\\", "~", "\0", "\n", "%2e%2e", "C:", "con", ".", " ", "a", "@", "1", "@1", "é", "\ud800", "\u202e",
    "live", "base", "mine", "{x}", "${x}", "$(id)", "__import__('os')", "<b>", "'", '"', "://", "a" * 300, "-",
    "_", "|", "*",
)  # fmt: skip
PIECES = (b"\0", b'"', b"\n", b"\xff", b"{", b"[" * 5_000, b"9" * 400, b"\xed\xa0\x80")
Case = Callable[[random.Random, Path], object]


def mutated(chance: random.Random, whole: bytes) -> bytes:
    """Some bytes of a file flipped, cut out, repeated, or put in."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, length = chance.randrange(len(data) + 1), chance.choice((1, 2, 4, 8, 64, 1000))
        match chance.randrange(6):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del data[at : at + length]
            case 2:
                data[at:at] = data[max(0, at - length) : at]
            case 3:
                data[at:at] = chance.choice(PIECES)
            case 4:
                del data[at:]
            case _:
                data[at : at + 8] = chance.choice((2**63 - 1, 2**31, 0, 2**64 - 1)).to_bytes(8, "little")
    return bytes(data)


def value(chance: random.Random, depth: int = 2) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value of any kind."""
    kinds = [None, True, False, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "", name(chance)]
    if depth and chance.random() < 0.4:
        some = [value(chance, depth - 1) for _ in range(chance.randrange(3))]
        return some if chance.random() < 0.5 else {name(chance): one for one in some}
    return chance.choice(kinds)


def name(chance: random.Random) -> str:
    """A name made of odd parts."""
    return "".join(chance.choice(ODD) for _ in range(chance.randrange(1, 5)))


def with_changes(chance: random.Random, good: Mapping[str, Any]) -> str:
    """JSON of an object with some values of other kinds, or its text mutated."""
    changed = {**good, **{chance.choice([*good, name(chance)]): value(chance) for _ in range(chance.randrange(4))}}
    text = json.dumps(changed)
    return text if chance.random() < 0.7 else mutated(chance, text.encode()).decode("utf-8", "replace")


def tables() -> dict[str, bytes]:
    """Good files of rows of each kind."""
    rows = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    csv_text = "text,label\n" + "".join(f'"{row["text"]}",{row["label"]}\n' for row in rows)
    return {
        "rows.csv": csv_text.encode(), "rows.tsv": csv_text.replace(",", "\t").encode(),
        "rows.jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "rows.json": json.dumps(rows).encode(), "rows.parquet": sink.getvalue().to_pybytes(),
    }  # fmt: skip


def table_case() -> Case:
    """A file of rows."""
    good = tables()

    def case(chance: random.Random, folder: Path) -> None:
        kind = chance.choice([*good])
        (folder / kind).write_bytes(mutated(chance, good[kind]))
        table = read_table(folder / kind, "label", Columns(text="text", target="label"), limits=LIMITS)
        for _ in itertools.islice(table.bad_rows(), 50):
            pass

    return case


def adapter_case() -> Case:
    """An adapter's configuration and weights."""
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query"], "bias": "none",
              "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "use_dora": False}  # fmt: skip
    held = {f"base_model.model.{layer}.lora_{part}.weight": np.ones((4, 8) if part == "A" else (8, 4), "f4")
            for layer in LAYERS for part in "AB"}  # fmt: skip

    def case(chance: random.Random, folder: Path) -> None:
        save_file(held, folder / WEIGHTS)
        (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
        if chance.random() < 0.5:
            (folder / WEIGHTS).write_bytes(mutated(chance, (folder / WEIGHTS).read_bytes()))
        else:
            (folder / "adapter_config.json").write_bytes(with_changes(chance, config).encode("utf-8", "replace"))
        read_adapter(folder, LAYERS, "mine@1")

    return case


def model_case() -> Case:
    """The JSON files of a base."""
    good: dict[str, Mapping[str, Any]] = {
        "config.json": {"model_type": "bert", "hidden_size": 4},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "vocab_file": "vocab.txt"},
        "model.safetensors.index.json": {"weight_map": {"w": "model.safetensors"}},
    }

    def case(chance: random.Random, folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"x")
        changed = chance.choice([*good])
        for file, content in good.items():
            text = with_changes(chance, content) if file == changed else json.dumps(content)
            (folder / file).write_bytes(text.encode("utf-8", "replace"))
        check_model(folder, "org/name")

    return case


def config_case() -> Case:
    """A run's configuration."""
    columns = {"text": "text", "target": "label"}
    good = vars(TrainConfig("mine", "classification", "org/base", "text-classification", "rows.csv", columns))
    return lambda chance, folder: TrainConfig.from_json(with_changes(chance, good))


def name_case() -> Case:
    """The name of a version, a tab, a run, a data set."""

    def case(chance: random.Random, folder: Path) -> None:
        home, given = folder / "home", name(chance)
        store, corrections, runs = AdapterStore(home), Corrections(home), Runs(Settings(home=home))
        row = {"text": given, "target": name(chance)}
        acts: list[Callable[[], object]] = [
            lambda: store.get(given), lambda: store.promote("echo", given), lambda: store.delete(given),
            lambda: corrections.add(given, row), lambda: corrections.delete("echo", given),
            lambda: corrections.edit(given, given, given), lambda: runs.get(given), lambda: runs.cancel(given),
            lambda: runs.delete(given), lambda: runs.resume(given), lambda: corrections.add("echo", row),
            lambda: parse_place(given, given, given, local=False),
        ]  # fmt: skip
        before = {path for path in folder.rglob("*") if not path.is_relative_to(home)}
        try:
            chance.choice(acts)()
        finally:
            outside = {path for path in folder.rglob("*") if not path.is_relative_to(home)} - before
            if outside:
                raise AssertionError(f"{given!r} wrote {outside}")

    return case


CASES: Mapping[str, Callable[[], Case]] = {
    "tables": table_case, "adapters": adapter_case, "models": model_case, "configs": config_case, "names": name_case,
}  # fmt: skip


def explore(target: str, seconds: float, seed: int) -> dict[str, Any]:
    """Cases of one target for so many seconds."""
    counts, problems, stop = {"read": 0, "refused": 0}, list[str](), time.monotonic() + seconds
    case = CASES[target]()
    for number in itertools.count():
        if time.monotonic() > stop:
            break
        with tempfile.TemporaryDirectory(prefix="graft-fuzz-") as folder:
            counts[tried(target, case, f"{seed}-{number}", Path(folder), problems)] += 1
    return {"target": target, "cases": sum(counts.values()), **counts, "problems": len(problems), "first": problems[:1]}


def tried(target: str, case: Case, seed: str, folder: Path, problems: list[str]) -> str:
    """One case: read or refused; anything else is a problem, and written down."""
    try:
        case(random.Random(f"{target}-{seed}"), folder)
    except GraftError:
        return "refused"
    except Exception:
        FOUND.mkdir(parents=True, exist_ok=True)
        (FOUND / f"{target}-{seed}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        problems.append(f"{target}-{seed}: {traceback.format_exc().splitlines()[-1][:200]}")
        return "refused"
    return "read"


def run(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Every target, or those that are named; a row each."""
    parser = argparse.ArgumentParser("python -m bench fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", default=list(CASES), help=", ".join(CASES))
    parser.add_argument("--seconds", type=float, default=600.0, help="in all")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    options = parser.parse_args(arguments)
    return [explore(target, options.seconds / len(options.targets), options.seed) for target in options.targets]
