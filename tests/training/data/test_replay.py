"""Tests of training/data/replay.py: corrections are trained on and not held out, beside rows that are replayed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from errors import ConfigError, DataError
from models.resolve import ModelStore
from models.tokenizer import load_tokenizer
from settings import Settings
from tasks import TASKS
from tests.conftest import Trained
from tests.helpers.training_helpers import config_of
from training.config import TrainConfig
from training.data.prepare import Prepared, prepare
from training.data.replay import choose_replayed, read_corrections
from training.events import Events


def correct(config: TrainConfig, folder: Path, *rows: dict, **chosen: object) -> TrainConfig:
    path = folder / "corrections.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return replace(config, corrections=str(path), **chosen)


def ready(config: TrainConfig, bert: Trained, home: Path, known: tuple[str, ...] = ()) -> Prepared:
    model = ModelStore(bert.home / "models", offline=True).resolve(bert.spec.model)
    task, settings = TASKS["text-classification"], Settings(home=home)
    return prepare(config, task, load_tokenizer(model), settings, Events(home), known)


def content(data: Prepared) -> list[tuple[int, ...]]:
    return [(*data.train[i]["input_ids"], data.train[i]["labels"]) for i in range(len(data.train))]


def test_corrections_are_repeated_and_not_held_out_and_other_held_out_rows_stay(bert: Trained, home: Path) -> None:
    plain = config_of(bert.spec, home, "plain")
    before = ready(plain, bert, home)
    taken = before.held_out.kept[0]["text"]  # a correction of a row that was held out
    rows = {"id": "a", "text": "brand new", "target": "0"}, {"text": taken, "label": "1"}
    config = correct(plain, home, *rows, correction_weight=3, replay_rows=8)
    data = ready(config, bert, home)
    assert data.held_out.kept == [row for row in before.held_out.kept if row["text"] != taken]
    assert [row["text"] for row in data.corrections.rows] == ["brand new", taken]
    assert data.corrections.ids == {"a": {"text": "brand new", "target": "0"}}
    assert data.replayed == 8 and len(data.train) == 8 + 2 * 3 and not data.alone
    rows = content(data)
    assert max(rows.count(row) for row in rows) == 3 and set(rows[:8]) <= set(content(before))
    assert data.fingerprint != before.fingerprint
    again = ready(replace(config, correction_weight=2), bert, home)
    assert content(again)[:8] == rows[:8] and again.fingerprint != data.fingerprint


def test_a_row_whose_question_is_corrected_is_not_replayed(bert: Trained, home: Path) -> None:
    plain = config_of(bert.spec, home, "plain")
    before = ready(plain, bert, home)
    sample = before.report.sample
    data = ready(correct(plain, home, *({"text": row["text"], "target": "0"} for row in sample)), bert, home)
    held_out = sum(row in before.held_out.kept for row in sample)
    assert data.replayed == len(before.train) - (len(sample) - held_out)


def test_labels_are_those_of_rows_corrections_and_the_version_before(bert: Trained, home: Path) -> None:
    plain = config_of(bert.spec, home, "plain")
    assert ready(correct(plain, home, {"text": "one", "target": "2"}), bert, home).labels == ["0", "1", "2"]
    data = ready(correct(plain, home, {"text": "one", "target": "1"}, data=""), bert, home, known=("1", "0"))
    assert data.labels == ["0", "1"] and data.alone and data.held_out.kept == data.corrections.rows
    assert (data.sha256, data.replayed, len(data.train), data.report.rows) == ("", 0, 1, 1)


def test_replayed_rows_have_each_label_and_are_the_same_each_time() -> None:
    random = np.random.default_rng(0)
    texts = random.integers(0, 2**63, 1000, dtype=np.uint64)
    labels = np.array([0] * 900 + [1] * 97 + [2] * 3, np.uint16)
    candidates = random.random(1000) < 0.9
    candidates[-1] = True
    chosen = choose_replayed(texts, labels, candidates, 100)
    assert 95 <= chosen.sum() <= 105 and set(labels[chosen]) == {0, 1, 2} and not (chosen & ~candidates).any()
    order = random.permutation(1000)
    assert (choose_replayed(texts[order], labels[order], candidates[order], 100) == chosen[order]).all()
    assert all((choose_replayed(texts, labels, candidates, most) == candidates).all() for most in (0, 999))


def test_a_file_of_corrections_without_usable_rows_is_refused(bert: Trained, home: Path) -> None:
    plain = config_of(bert.spec, home, "plain")
    refusals = {"has no rows": (), "Row 1 .* target is missing": ({"text": "x"},), "no JSON object": ([],)}
    for refusal, rows in refusals.items():
        with pytest.raises(DataError, match=refusal):
            read_corrections(correct(plain, home, *rows), "label")
    with pytest.raises(DataError, match="is not there"):
        ready(replace(plain, corrections=str(home / "gone.jsonl")), bert, home)


def test_a_wrong_configuration_of_corrections_is_refused(bert: Trained, home: Path) -> None:
    plain = config_of(bert.spec, home, "plain")
    with pytest.raises(ConfigError) as refused:
        replace(plain, corrections="x", correction_weight=0, replay_rows=True)
    assert len(refused.value.problems) == 2
    with pytest.raises(ConfigError, match="keep_best"):
        replace(plain, corrections="x", keep_best=True)
    with pytest.raises(ConfigError, match="data is empty"):
        replace(plain, data="")
    assert TrainConfig.from_json(replace(plain, data="", corrections="x").to_json()).corrections == "x"
