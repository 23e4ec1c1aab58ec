"""Tests of training/data/prepare.py: rows are tokenized once, and a folder of them is whole or not there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk

from errors import DataError, RunError
from settings import REPOSITORY, Settings, child_environment
from store import files
from tasks import TASKS
from tests.helpers import tiny
from tests.helpers.training_helpers import bare_config, config_of, run_worker, spec_of
from tests.helpers.waiting import until
from training.config import TrainConfig
from training.data.prepare import FACTS, HELD_OUT, TRAIN, Prepared, make_room, prepare
from training.data.rows import Row
from training.data.tokens import ARROW_FILE, Encoded, encode_rows
from training.events import Events, read_events

pytestmark = pytest.mark.slow

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
    return bare_config(TASK_OF[family], str(path), **values)


def prepared(config: TrainConfig, home: Path, tokenizer: Any = None, budget: int = 10**9) -> Prepared:
    family = next(family for family, task in TASK_OF.items() if task == config.task)
    settings = Settings(home=home, cache_bytes=budget)
    return prepare(config, TASKS[config.task], tokenizer or TOKENIZERS[family], settings, Events(home))


def stages(home: Path) -> list[str]:
    """Return the stages that were emitted since the last call."""
    found = [event["stage"] for event in read_events(home) if event["kind"] == "prepare"]
    (home / "events.jsonl").unlink(missing_ok=True)
    return list(dict.fromkeys(found))


def folders(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "data" / "prepared").glob("*") if not path.name.startswith("."))


@pytest.mark.parametrize("family", TASK_OF)
def test_prepared_rows_are_those_encoded_in_memory(tmp_path: Path, family: str) -> None:
    config, rows = configure(tmp_path, family), rows_of(family)
    data = prepared(config, tmp_path)
    assert data.labels == (["a", "b"] if family == "bert" else [])

    def encode(rows: list[Row]) -> Encoded:
        return encode_rows(rows, TOKENIZERS[family], config, data.labels, config.task)

    every = encode(rows)
    held = data.held_out.kept
    trained = [row for row in every.kept if row not in held]
    assert held and trained and data.train[:] == encode(trained).examples
    assert data.held_out.examples == data.validation[:] == encode(held).examples
    assert data.truncated + data.held_out.truncated == every.truncated > 0
    tokens = [token for e in every.examples for token in e["input_ids"] + (e["labels"] if family == "t5" else [])]
    assert data.largest_token == max(tokens)
    assert (data.report.file, data.report.usable) == ("a.jsonl", 40)
    opened = load_from_disk(str(tmp_path / "data" / "prepared" / data.fingerprint))
    assert {name: len(part) for name, part in opened.items()} == {"train": len(trained), "held_out": len(held)}


def test_the_same_rows_are_tokenized_once(tmp_path: Path) -> None:
    config = configure(tmp_path, "llama")
    first = prepared(config, tmp_path)
    assert stages(tmp_path) == ["hash", "read", "tokenize"]
    moved = replace(config, data=str(Path(config.data).rename(tmp_path / "b.jsonl")), name="other", learning_rate=0.1)
    second = prepared(moved, tmp_path)
    assert stages(tmp_path) == ["hash"]
    assert second.fingerprint == first.fingerprint and folders(tmp_path) == [first.fingerprint]
    assert (second.train[:], second.held_out, second.truncated) == (first.train[:], first.held_out, first.truncated)
    assert second.report == replace(first.report, file="b.jsonl")


def test_the_key_depends_on_all_that_decides_the_content(tmp_path: Path) -> None:
    config = configure(tmp_path, "llama")
    other = tiny._tokenizer("llama")
    other.chat_template = other.chat_template.replace("assistant", "me")
    configure(tmp_path, "llama", [*rows_of("llama"), {"text": "new", "target": "new"}], name="longer")
    longer = str(tmp_path / "longer.jsonl")
    changes: list[dict[str, Any]] = [{}, {"seed": 1}, {"held_out": 0.3}, {"max_length": 63}, {"prompt": "{text}"}]
    changes += [{"mapping": {"text": "target", "target": "text"}}, {"columns": {"text": "text", "target": "answer"}}]
    keys = [prepared(replace(config, **change), tmp_path).fingerprint for change in [*changes, {"data": longer}]]
    keys.append(prepared(config, tmp_path, other).fingerprint)
    assert len(set(keys)) == len(keys) == 9
    with pytest.raises(RunError, match="No row is short enough"):
        prepared(replace(config, held_out_data=longer), tmp_path)
    TOKENIZERS["llama"](["a", "b c"], padding=True, truncation=True, max_length=9)
    assert prepared(config, tmp_path).fingerprint == keys[0], "padding and truncation are no part of the key"


def test_rows_of_a_held_out_file_are_not_trained_on_in_any_form(tmp_path: Path) -> None:
    rows = rows_of("bert")
    held_out = [*rows[:12], {"text": "of no label", "target": "c"}]
    configure(tmp_path, "bert", held_out, name="held")
    config = configure(tmp_path, "bert", held_out_data=str(tmp_path / "held.jsonl"))
    data = prepared(config, tmp_path)
    assert data.held_out.kept == rows[:12]
    assert data.train[:] == encode_rows(rows[12:], TOKENIZERS["bert"], config, ["a", "b"], config.task).examples
    configure(tmp_path, "bert", [{**rows[0], "text": f"  {rows[0]['text'].upper()} !"}], name="held")
    assert len(prepared(config, tmp_path).train) == len(rows) - 1
    configure(tmp_path, "bert", held_out[-1:], name="held")
    with pytest.raises(DataError, match=r"has a label that is learned\. Its labels are 'c'"):
        prepared(config, tmp_path)


FILES = (f"{TRAIN}/{ARROW_FILE}", f"{HELD_OUT}/state.json", FACTS, "manifest.json")


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_data_is_made_again(tmp_path: Path, file: str, damage: str) -> None:
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


def test_data_without_a_short_row_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    config = configure(tmp_path, "llama", [{"text": f"t {i}", "target": "long " * 99} for i in range(20)])
    with pytest.raises(RunError, match="No row is short enough"):
        prepared(config, tmp_path)
    assert folders(tmp_path) == []
    with pytest.raises(DataError, match="is not there"):
        prepared(replace(config, data="gone.jsonl"), tmp_path)


class Meddling(Events):
    """Events that write to the data when the first row is tokenized."""

    def __init__(self, folder: Path, data: Path) -> None:
        super().__init__(folder)
        self._data = data

    def emit(self, kind: str, **values: Any) -> None:
        super().emit(kind, **values)
        if values["stage"] == "tokenize":
            self._data.write_text(self._data.read_text().replace("text 1", "text x"))


def test_data_that_changes_while_it_is_prepared_is_refused(tmp_path: Path) -> None:
    config = configure(tmp_path, "bert")
    with pytest.raises(DataError, match="changed while it was read"):
        meddling = Meddling(tmp_path, Path(config.data))
        prepare(config, TASKS[config.task], TOKENIZERS["bert"], Settings(home=tmp_path), meddling)
    assert folders(tmp_path) == []


def test_the_least_recently_used_data_is_evicted_and_none_in_use(tmp_path: Path) -> None:
    root = tmp_path / "data" / "prepared"
    made = [prepared(configure(tmp_path, "bert", seed=seed), tmp_path) for seed in range(3)]
    for age, data in enumerate(made):
        os.utime(root / f".{data.fingerprint}.use", (age, age))
    one = sum(file.stat().st_size for file in (root / made[0].fingerprint).rglob("*"))
    make_room(root, 0)
    assert len(folders(tmp_path)) == 3, "all of them are in use"
    for data in made:
        data.use.release()
    make_room(root, 10 * one)
    assert len(folders(tmp_path)) == 3
    claimed = files.SharedLock(root / f".{made[0].fingerprint}.use")
    os.utime(root / f".{made[0].fingerprint}.use", (0, 0))
    make_room(root, one * 5 // 2)
    assert folders(tmp_path) == sorted([made[0].fingerprint, made[2].fingerprint])
    claimed.release()
    own = prepared(configure(tmp_path, "bert", seed=5), tmp_path, budget=0)
    assert folders(tmp_path) == [own.fingerprint] and len(own.train) > 8, "however small the budget"


CHILD = """
import sys
from pathlib import Path
from tests.training.data import test_prepare as t
home = Path(sys.argv[1])
t.prepared(t.configure(home, "llama", t.rows_of("llama", 20_000)), home)
"""


def test_r11_a_killed_preparation_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], cwd=REPOSITORY, env=child_environment())
    until(lambda: child.poll() is not None or "tokenize" in str(read_events(tmp_path)), seconds=120)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "it was not done yet"
    root = tmp_path / "data" / "prepared"
    assert folders(tmp_path) == [] and list(root.glob(f".staging-*/out/{TRAIN}/{ARROW_FILE}"))
    again = prepared(configure(tmp_path, "llama"), tmp_path)
    assert folders(tmp_path) == [again.fingerprint]
    assert not list(root.glob(".staging-*")), "its files are removed"


def test_data_of_an_older_layout_is_made_again_under_the_same_key(tmp_path: Path) -> None:
    config = configure(tmp_path, "bert")
    first = prepared(config, tmp_path)
    folder, rows = tmp_path / "data" / "prepared" / first.fingerprint, first.train[:]
    manifest = files.read_json(folder / "manifest.json")
    files.write_json(folder / "manifest.json", {"files": manifest["files"]})
    again = prepared(config, tmp_path)
    assert (again.fingerprint, again.train[:]) == (first.fingerprint, rows)
    assert files.read_json(folder / "manifest.json")["layout"] == "datasets"


def test_a_second_run_on_the_same_data_only_hashes_it(tmp_path: Path) -> None:
    spec, fingerprints = spec_of("bert", tiny.make("bert", tmp_path / "base")), []
    for name, emitted in (("one", {"hash", "read", "tokenize"}), ("two", {"hash"})):
        assert run_worker(config_of(spec, tmp_path, name), tmp_path)["state"] == "done"
        assert emitted == {e["stage"] for e in read_events(tmp_path / "runs" / name) if e["kind"] == "prepare"}
        fingerprints.append(
            files.read_json(tmp_path / "adapters" / name / "1" / "manifest.json")["data"]["fingerprint"]
        )
    assert folders(tmp_path) == [*{*fingerprints}]
