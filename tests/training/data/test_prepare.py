"""training/data/prepare.py: token ids on disk are what encoding in memory gives, made once, and whole or not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from errors import DataError, RunError
from settings import REPOSITORY, Settings, child_environment
from store import files
from tasks import TASKS
from tests.helpers import tiny
from tests.helpers.training_helpers import config_of, run_worker, spec_of
from training.config import TrainConfig
from training.data.prepare import FACTS, HELD_OUT, TRAIN, Prepared, make_room, prepare
from training.data.table import Row
from training.data.tokens import encode_rows
from training.events import Events, read_events

TOKENIZERS = {family: tiny._tokenizer(family) for family in ("bert", "llama", "t5")}
TASK_OF = {"bert": "text-classification", "llama": "causal-lm", "t5": "seq2seq-lm"}


def rows_of(family: str, count: int = 40) -> list[Row]:
    target = (lambda i: "ab"[i % 2]) if family == "bert" else (lambda i: f"sum {i}" + " long" * (200 * (i % 13 == 5)))
    return [{"text": f"text {i}" + " more" * (i % 7 * 20), "target": target(i)} for i in range(count)]


def configure(home: Path, family: str, rows: list[Row] | None = None, name: str = "a", **chosen: Any) -> TrainConfig:
    home.mkdir(exist_ok=True)
    path = home / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or rows_of(family)))
    values = {"prompt": "" if family == "bert" else "Sum up: {text}", "max_length": 64, "held_out": 0.2, **chosen}
    columns = {"text": "text", "target": "target"}
    return TrainConfig(name="a", plugin="p", model="m", task=TASK_OF[family], data=str(path), columns=columns, **values)


def prepared(config: TrainConfig, home: Path, tokenizer: Any = None, budget: int = 10**9) -> Prepared:
    family = next(family for family, task in TASK_OF.items() if task == config.task)
    settings = Settings(home=home, cache_bytes=budget)
    return prepare(config, TASKS[config.task], tokenizer or TOKENIZERS[family], settings, Events(home))


def stages(home: Path) -> list[str]:
    """The stages that were told since the last look."""
    told = [event["stage"] for event in read_events(home) if event["kind"] == "prepare"]
    (home / "events.jsonl").unlink(missing_ok=True)
    return list(dict.fromkeys(told))


def folders(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "data" / "prepared").glob("*") if not path.name.startswith("."))


@pytest.mark.parametrize("family", TASK_OF)
def test_what_is_on_disk_is_what_encoding_in_memory_gives(tmp_path: Path, family: str) -> None:
    config, rows = configure(tmp_path, family), rows_of(family)
    data = prepared(config, tmp_path)
    assert data.labels == (["a", "b"] if family == "bert" else [])
    held = data.held_out.kept
    rest = [row for row in rows if row not in held]
    expected = encode_rows(rest, TOKENIZERS[family], config, data.labels, config.task)
    held_too_long = [row for row in expected.kept if row["text"] not in {r["text"] for r in rest}]
    assert not held_too_long and held and len(data.train) + len(held) <= len(rows)
    assert list(data.train) == [e for e in expected.examples if e in list(data.train)] == data.train[:]
    assert data.held_out.examples == encode_rows(held, TOKENIZERS[family], config, data.labels, config.task).examples
    assert data.train.lengths.tolist() == [len(example["input_ids"]) for example in data.train]
    learned = [sum(t != -100 for t in e["labels"]) if isinstance(e["labels"], list) else 1 for e in data.train]
    assert data.train.learned.tolist() == learned and max(learned) < 64
    assert (
        data.truncated + data.held_out.truncated
        == encode_rows(rows, TOKENIZERS[family], config, data.labels, config.task).truncated
        > 0
    )
    assert data.train[-1] == data.train[len(data.train) - 1]
    with pytest.raises(IndexError):
        data.train[len(data.train)]
    assert (data.report.file, data.report.usable) == ("a.jsonl", 40)


def test_the_second_time_nothing_is_read_or_tokenized(tmp_path: Path) -> None:
    config = configure(tmp_path, "llama")
    first = prepared(config, tmp_path)
    assert stages(tmp_path) == ["hash", "read", "tokenize"]
    moved = replace(config, data=str(Path(config.data).rename(tmp_path / "b.jsonl")), name="other", learning_rate=0.1)
    second = prepared(moved, tmp_path)
    assert stages(tmp_path) == ["hash"]
    assert second.fingerprint == first.fingerprint and folders(tmp_path) == [first.fingerprint]
    assert (second.train[:], second.held_out, second.truncated) == (first.train[:], first.held_out, first.truncated)
    assert second.report == replace(first.report, file="b.jsonl")


def test_what_decides_the_content_decides_the_key(tmp_path: Path) -> None:
    config = configure(tmp_path, "llama")
    other = tiny._tokenizer("llama")
    other.chat_template = other.chat_template.replace("assistant", "me")
    configure(tmp_path, "llama", [*rows_of("llama"), {"text": "new", "target": "new"}], name="longer")
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"held_out": 0.3}, {"max_length": 63}, {"prompt": "{text}"}, {"mapping": {"text": "target"}},
        {"mapping": {"text": "target", "target": "text"}}, {"columns": {"text": "text", "target": "answer"}},
        {"data": str(tmp_path / "longer.jsonl")}, {"held_out_data": str(tmp_path / "longer.jsonl")},
    ]  # fmt: skip
    keys = []
    for change in changes:
        try:
            keys.append(prepared(replace(config, **change), tmp_path).fingerprint)
        except (DataError, RunError):
            assert change in ({"mapping": {"text": "target"}}, {"held_out_data": str(tmp_path / "longer.jsonl")})
    keys.append(prepared(config, tmp_path, other).fingerprint)
    assert len(set(keys)) == len(keys) >= len(changes) - 1
    TOKENIZERS["llama"](["a", "b c"], padding=True, truncation=True, max_length=9)
    assert prepared(config, tmp_path).fingerprint == keys[0], "the state of a tokenizer is not its content"


def test_rows_held_out_by_a_file_are_not_trained_on(tmp_path: Path) -> None:
    rows = rows_of("bert")
    configure(tmp_path, "bert", [*rows[:12], {"text": "of no label", "target": "c"}], name="held")
    config = configure(tmp_path, "bert", held_out_data=str(tmp_path / "held.jsonl"))
    data = prepared(config, tmp_path)
    assert data.held_out.kept == rows[:12]
    assert data.train[:] == encode_rows(rows[12:], TOKENIZERS["bert"], config, ["a", "b"], config.task).examples


def test_a_held_out_row_in_another_form_is_not_trained_on_either(tmp_path: Path) -> None:
    rows = rows_of("bert")
    configure(tmp_path, "bert", [{**rows[0], "text": f"  {rows[0]['text'].upper()} !"}], name="held")
    config = configure(tmp_path, "bert", held_out_data=str(tmp_path / "held.jsonl"))
    assert len(prepared(config, tmp_path).train) == len(rows) - 1
    configure(tmp_path, "bert", [{"text": "of no label", "target": "c"}], name="held")
    with pytest.raises(DataError, match=r"has a label that is learned\. Its labels are 'c'"):
        prepared(config, tmp_path)


@pytest.mark.parametrize("file", [TRAIN, HELD_OUT, FACTS, "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_what_is_damaged_is_made_again(tmp_path: Path, file: str, damage: str) -> None:
    config = configure(tmp_path, "bert")
    first = prepared(config, tmp_path)
    kept, path = first.train[:], tmp_path / "data" / "prepared" / first.fingerprint / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()  # another file, because the first is mapped into this process
    if damage != "gone":
        path.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    stages(tmp_path)
    again = prepared(config, tmp_path)
    assert "tokenize" in stages(tmp_path) or (file, damage) == ("manifest.json", "flip")
    assert again.train[:] == kept and again.held_out == first.held_out and again.report == first.report


def test_nothing_short_enough_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "target": "long " * 99} for i in range(20)]
    with pytest.raises(RunError, match="No row is short enough"):
        prepared(configure(tmp_path, "llama", rows), tmp_path)
    assert folders(tmp_path) == []
    with pytest.raises(DataError, match="is not there"):
        prepared(replace(configure(tmp_path, "llama"), data="gone.jsonl"), tmp_path)


class Meddling(Events):
    """Writes to the data when the first row is tokenized."""

    def __init__(self, folder: Path, data: Path) -> None:
        super().__init__(folder)
        self._data = data

    def emit(self, kind: str, **values: Any) -> None:
        super().emit(kind, **values)
        if values["stage"] == "tokenize":
            self._data.write_text(self._data.read_text().replace("text 1", "text x"))


def test_data_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    config = configure(tmp_path, "bert")
    with pytest.raises(DataError, match="changed while it was read"):
        prepare(config, TASKS[config.task], TOKENIZERS["bert"], Settings(home=tmp_path),
                Meddling(tmp_path, Path(config.data)))  # fmt: skip
    assert folders(tmp_path) == []


def test_room_is_made_by_removing_what_was_used_longest_ago(tmp_path: Path) -> None:
    root = tmp_path / "data" / "prepared"
    made = [prepared(configure(tmp_path, "bert", seed=seed), tmp_path) for seed in range(3)]
    for age, data in enumerate(made):
        os.utime(root / f".{data.fingerprint}.use", (age, age))
    one = sum(file.stat().st_size for file in (root / made[0].fingerprint).iterdir())
    make_room(root, 0)
    assert len(folders(tmp_path)) == 3, "all of them are in use"
    for data in made:
        data.use.end()
    make_room(root, 10 * one)
    assert len(folders(tmp_path)) == 3
    claimed = files.Use(root / f".{made[0].fingerprint}.use")
    os.utime(root / f".{made[0].fingerprint}.use", (0, 0))
    make_room(root, one * 5 // 2)
    assert folders(tmp_path) == sorted([made[0].fingerprint, made[2].fingerprint])
    claimed.end()
    make_room(root, 0)
    assert folders(tmp_path) == []


def test_a_run_keeps_its_own_data_however_small_the_budget(tmp_path: Path) -> None:
    first = prepared(configure(tmp_path, "bert"), tmp_path, budget=0)
    assert folders(tmp_path) == [first.fingerprint] and len(first.train) > 8
    first.use.end()
    second = prepared(configure(tmp_path, "bert", seed=5), tmp_path, budget=0)
    assert folders(tmp_path) == [second.fingerprint]


CHILD = """
import sys
from pathlib import Path
from tests import test_prepared as t
home = Path(sys.argv[1])
t.prepared(t.configure(home, "llama", t.rows_of("llama", 20_000)), home)
"""


def test_a_preparation_that_is_killed_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=REPOSITORY, env=child_environment())
    told: list[str] = []
    while child.poll() is None and "tokenize" not in told:
        told = [event["stage"] for event in read_events(tmp_path)]
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was still at it"
    root = tmp_path / "data" / "prepared"
    assert folders(tmp_path) == [] and list(root.glob(".staging-*/out/train.arrow"))
    again = prepared(configure(tmp_path, "llama"), tmp_path)
    assert folders(tmp_path) == [again.fingerprint]
    assert not list(root.glob(".staging-*")), "nor does it take room for long"


@pytest.mark.parametrize("family", TASK_OF)
def test_a_run_of_each_task_and_its_second_time(tmp_path: Path, family: str) -> None:
    spec = spec_of(family, tiny.make(family, tmp_path / "base"))
    told, prints = [], []
    for name in ("one", "two"):
        result = run_worker(config_of(spec, tmp_path, name), tmp_path)
        assert result["state"] == "done", result
        told.append([e["stage"] for e in read_events(tmp_path / "runs" / name) if e["kind"] == "prepare"])
        manifest = files.read_json(tmp_path / "adapters" / name / "1" / "manifest.json")
        prints.append(manifest["data"]["fingerprint"])
    assert "tokenize" in told[0] and set(told[1]) == {"hash"}
    assert prints[0] == prints[1] == folders(tmp_path)[0]
