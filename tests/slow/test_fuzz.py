"""Damaged files and odd names, by the thousand: nothing but errors in words leaves the code that reads them.

Each case is a good file with bytes flipped, cut, repeated or inserted, or a name made of odd parts. Adapters are
damaged in tests/models/test_adapter_check.py.
"""

from __future__ import annotations

import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from errors import GraftError
from models.preflight import check_model
from settings import Settings
from store.adapters import AdapterStore
from store.corrections import Corrections
from tasks import Columns
from tests.helpers.row_files import write
from tests.slow import size
from training.config import TrainConfig
from training.data.files.formats import Limits
from training.data.files.hub_dataset import parse_hub_id
from training.data.table import read_table
from training.runs.runs import Runs

SECONDS, SEED = size("FUZZ_SECONDS", 3), int(size("FUZZ_SEED", 7))
LIMITS = Limits(file_bytes=10**7, rows=10**5, decoded_bytes=10**7)
PATHS = ("..", "/", "\\", "~", "\0", "\n", "%2e%2e", "C:", "con", ".", " ", "://", "-", "_", "|", "*")
WORDS = ("a", "@", "1", "@1", "é", "\ud800", "\u202e", "live", "base", "mine", "a" * 300)
CODE = ("{x}", "${x}", "$(id)", "__import__('os')", "<b>", "'", '"')
PIECES = (b"\0", b'"', b"\n", b"\xff", b"{", b"[" * 5_000, b"9" * 400, b"\xed\xa0\x80")
ROWS = [{"text": f"text {i}", "label": "ab"[i % 2]} for i in range(40)]
BASE: Mapping[str, Mapping[str, Any]] = {
    "config.json": {"model_type": "bert", "hidden_size": 4},
    "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "vocab_file": "vocab.txt"},
    "model.safetensors.index.json": {"weight_map": {"w": "model.safetensors"}},
}
COLUMNS = {"text": "text", "target": "label"}
CONFIG = TrainConfig("mine", "classification", "org/base", "text-classification", "rows.csv", COLUMNS)


def mutated(chance: random.Random, whole: bytes) -> bytes:
    """Flip, cut, repeat or insert some bytes."""
    data = bytearray(whole)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, length = chance.randrange(len(data) + 1), chance.choice((1, 2, 4, 8, 64, 1000))
        number = chance.choice((2**63 - 1, 2**31, 0, 2**64 - 1)).to_bytes(8, "little")
        end, new = chance.choice(
            [
                (at + 1, bytes([chance.randrange(256)])),
                (at + length, b""),
                (at, bytes(data[max(0, at - length) : at])),
                (at, chance.choice(PIECES)),
                (len(data), b""),
                (at + 8, number),
            ]
        )
        data[at:end] = new
    return bytes(data)


def odd_name(chance: random.Random) -> str:
    return "".join(chance.choice(PATHS + WORDS + CODE) for _ in range(chance.randrange(1, 5)))


def odd_value(chance: random.Random, depth: int = 2) -> Any:
    """Make a JSON value of any kind."""
    if depth and chance.random() < 0.4:
        some = [odd_value(chance, depth - 1) for _ in range(chance.randrange(3))]
        return some if chance.random() < 0.5 else {odd_name(chance): one for one in some}
    return chance.choice([None, True, False, 0, -1, 10**30, 1.5, float("nan"), float("inf"), "", odd_name(chance)])


def changed(chance: random.Random, good: Mapping[str, Any]) -> bytes:
    """Write an object as JSON with some values of other kinds, or mutate its text."""
    names = [*good, odd_name(chance)]
    text = json.dumps({**good, **{chance.choice(names): odd_value(chance) for _ in range(chance.randrange(4))}})
    return text.encode("utf-8", "replace") if chance.random() < 0.7 else mutated(chance, text.encode())


def tables(chance: random.Random, folder: Path) -> None:
    path = write(folder / f"rows.{chance.choice(('csv', 'tsv', 'jsonl', 'json', 'parquet'))}", ROWS)
    path.write_bytes(mutated(chance, path.read_bytes()))
    table = read_table(path, "label", Columns(text="text", target="label"), limits=LIMITS)
    for _ in itertools.islice(table.bad_rows(), 50):
        pass


def models(chance: random.Random, folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"x")
    damaged = chance.choice([*BASE])
    for file, content in BASE.items():
        (folder / file).write_bytes(changed(chance, content) if file == damaged else json.dumps(content).encode())
    check_model(folder, "org/name")


def configs(chance: random.Random, folder: Path) -> None:
    TrainConfig.from_json(changed(chance, vars(CONFIG)).decode("utf-8", "replace"))


def names(chance: random.Random, folder: Path) -> None:
    home, given = folder / "home", odd_name(chance)
    store, corrections, runs = AdapterStore(home), Corrections(home), Runs(Settings(home=home))
    row = {"text": given, "target": odd_name(chance)}
    acts: list[Callable[[], object]] = [
        *(partial(act, given) for act in (store.get, store.delete, runs.get, runs.cancel, runs.delete, runs.resume)),
        lambda: store.promote("echo", given),
        lambda: corrections.add(given, row),
        lambda: corrections.add("echo", row),
        lambda: corrections.delete("echo", given),
        lambda: corrections.edit(given, given, given),
        lambda: parse_hub_id(given, given, given, local=False),
    ]
    try:
        chance.choice(acts)()
    finally:
        outside = [path for path in folder.rglob("*") if not path.is_relative_to(home)]
        assert not outside, f"{given!r} wrote {outside}"


TARGETS: list[Callable[[random.Random, Path], None]] = [tables, models, configs, names]


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_r16_r17_r23_nothing_but_typed_errors_leaves(target: Callable[[random.Random, Path], None]) -> None:
    read, refused, stop = 0, 0, time.monotonic() + SECONDS
    for number in itertools.count():
        if time.monotonic() > stop and number > 20:
            break
        with tempfile.TemporaryDirectory() as folder:
            try:
                target(random.Random(f"{target.__name__}-{SEED}-{number}"), Path(folder))
                read += 1
            except GraftError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"{target.__name__}-{SEED}-{number}") from error
    print(f"{target.__name__}: {read} read, {refused} refused")
    assert refused > 0
