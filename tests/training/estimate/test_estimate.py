"""Tests of training/estimate: memory by part, refusals with suggestions, and time from earlier runs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from errors import DataError, RunError
from models.loading import LINEAR, features, linear_paths, load_model
from models.resolve import ModelStore
from settings import Settings
from store import files
from tasks import Columns, TabSpec
from tests.helpers import tiny
from tests.helpers.run_helpers import STAND_IN
from tests.helpers.training_helpers import config_of, run_worker, spec_of
from training.config import TrainConfig
from training.estimate import advice, machine
from training.estimate.base_shapes import BASES, shape_from_files
from training.estimate.estimate import estimate_run, seconds_a_step
from training.estimate.lengths import LengthHistogram, from_report, from_rows
from training.estimate.machine import FreeResources
from training.estimate.training_memory import RunPlan
from training.events import RESULT, read_events
from training.runs.runs import Runs

ROOMY = FreeResources(memory=200_000_000_000, disk=10**12)


def plan_of(available: FreeResources = ROOMY, **chosen: object) -> RunPlan:
    base = next(base for base in BASES if base.key == "SmolLM2-135M-Instruct")
    spec = TabSpec("tab", base.id, "causal-lm", Columns(text="text", target="answer"))
    config = TrainConfig.for_tab(spec, Path("rows"), "mine", **{"max_length": 2048, **chosen})
    rows = LengthHistogram((100.0, 1000.0, 2000.0), (200.0, 90.0, 10.0), 0.4, "rows")
    return RunPlan(config, base.shape, rows, 2, available)


def test_parts_follow_the_settings() -> None:
    plain = estimate_run(plan_of())
    assert plain.peak == sum(plain.memory.values()) and plain.fits and plain.longest == 2000

    def peak(**chosen: object) -> int:
        return estimate_run(plan_of(**chosen)).peak

    assert peak(max_length=512) < plain.peak
    assert peak(quantize="4bit") < plain.peak
    assert peak(rank=64) > plain.peak
    assert peak(micro_batch_tokens=8000, batch_size=16) > plain.peak
    assert estimate_run(plan_of(gradient_checkpointing="on")).memory["activations"] < plain.memory["activations"]
    large = next(base.shape for base in BASES if base.shape.parameters > 7e9)
    short = replace(plan_of(quantize="4bit"), shape=large, rows=LengthHistogram((100.0,), (300.0,), 0.4, "rows"))
    loading = [estimate_run(replace(short, available=replace(ROOMY, gpu=n))).memory["loading"] for n in (0, 10**11)]
    assert loading[0] > 0 == loading[1], "a GPU gets one tensor after the other"
    assert estimate_run(plan_of(keep_best=True)).disk["checkpoints"] > plain.disk["checkpoints"]
    assert (plain.steps, estimate_run(plan_of(epochs=6.0)).steps) == (204, 408), "270 rows, 4 a step, 3 epochs"


def test_a_run_that_does_not_fit_is_refused_with_changes_that_fit() -> None:
    plan = plan_of(gradient_checkpointing="off")
    needed = estimate_run(plan).peak
    small = replace(plan, available=replace(ROOMY, memory=int(0.8 * needed)))
    with pytest.raises(RunError, match="does not fit in memory") as caught:
        advice.check(small)
    assert "Length 1,024 instead of 2,048 fits" in caught.value.next and "--anyway" in caught.value.next
    assert 1 <= len(advice.suggestions(small)) <= advice.MOST_SUGGESTIONS
    shorter = estimate_run(replace(small, config=replace(small.config, max_length=1024)))
    assert shorter.fits and advice.gigabytes(shorter.peak) in caught.value.next
    assert advice.check(replace(small, config=replace(small.config, anyway=True))).peak == needed
    hopeless = replace(plan, available=replace(ROOMY, memory=10**8))
    assert advice.suggestions(hopeless) == ["Nothing that Graft knows makes it fit: free some memory."]
    with pytest.raises(RunError, match="does not fit on the disk"):
        advice.check(replace(plan, available=replace(ROOMY, disk=1000)))


def test_gradient_checkpointing_is_used_where_a_run_fits_only_so() -> None:
    off, on = (estimate_run(plan_of(gradient_checkpointing=choice)) for choice in ("off", "on"))
    assert on.peak < off.peak and not estimate_run(plan_of()).checkpointing
    between = replace(ROOMY, memory=int((on.peak + off.peak) / 2 / 0.95))
    assert estimate_run(plan_of(between)).checkpointing
    assert not estimate_run(plan_of(between, gradient_checkpointing="off")).checkpointing
    assert not estimate_run(plan_of(replace(ROOMY, memory=10**8))).checkpointing, "it would not help"


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_the_shape_of_each_family_has_the_layers_that_are_adapted(family: str, tmp_path: Path) -> None:
    model = ModelStore(tmp_path, offline=True).resolve(str(tiny.make(family, tmp_path / family)))
    shape = shape_from_files(model)
    assert (shape.layers, shape.encoder_decoder) == ((4, True) if family in tiny.ENCODER_DECODERS else (2, False))
    net, _ = load_model(model, "AutoModel")
    layers = dict(net.named_modules())
    found = [features(layers[path]) for path in linear_paths(net) if "pooler" not in path]
    assert all(isinstance(layers[path], LINEAR) for path in linear_paths(net))
    kept = [layer for layer in shape.linear if layer.name != "dense" or layer.count > 1]
    assert shape.parameters >= sum(p.numel() for p in net.parameters() if p.dim() > 1) * 0.9
    assert abs(sum(a * b for a, b in found) / sum(k.inputs * k.outputs * k.count for k in kept) - 1) < 0.1


def test_lengths_are_those_of_tokens_or_estimated_from_words() -> None:
    exact = from_rows(np.array([10, 20, 400], np.int32), np.array([5, 5, 100], np.int32))
    assert exact.longest == 400 and exact.count == 3 and 0.2 < exact.learned < 0.3
    assert exact.cut(50).longest == 50 and exact.cut(50).mean < exact.mean
    assert np.isclose(exact.mean, 430 / 3, rtol=0.1)
    words = SimpleNamespace(usable=100, words={"median": 50, "max": 400}, tokens=None)
    guessed = from_report(words)  # type: ignore[arg-type]
    assert guessed.by == "words" and guessed.count == pytest.approx(100) and guessed.longest > 500
    tokens = SimpleNamespace(edges=(0, 10, 20, 40), counts=(5, 4, 1), longest=33, mean=11.0, learned_mean=5.5)
    counted = from_report(SimpleNamespace(usable=1000, words={}, tokens=tokens))  # type: ignore[arg-type]
    assert (counted.by, counted.longest, counted.count, counted.learned) == ("sample", 33, 1000, 0.5)


def test_free_resources_include_the_memory_of_a_running_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = machine.measure(tmp_path / "not" / "there")
    assert 0 < found.memory < 1 << 50 and found.disk > 0 and machine.processor()[0]
    files.write_json(tmp_path / "process.json", {"pid": os.getpid(), "started": 1})
    monkeypatch.setattr(machine.quota, "free_memory", lambda: 1000)
    assert machine.measure(tmp_path, [tmp_path]).memory > 10_000_000
    assert machine.measure(tmp_path, [tmp_path / "none"]).memory == 1000


def test_the_time_of_a_step_is_that_of_earlier_runs_on_the_same_base(tmp_path: Path) -> None:
    expected = estimate_run(plan_of())
    assert seconds_a_step(tmp_path, expected) == (0.0, 0)
    for number, seconds in enumerate((40.0, 50.0, 900.0)):
        took = {"seconds": {"train": seconds}, "tokens": expected.tokens}
        (tmp_path / "runs" / str(number)).mkdir(parents=True)
        files.write_json(tmp_path / "runs" / str(number) / RESULT, {"estimate": expected.to_dict(), "measured": took})
    files.write_json(tmp_path / "runs" / "0" / RESULT, {"state": "failed"})
    (tmp_path / "runs" / "1" / RESULT).write_text("{")
    assert seconds_a_step(tmp_path, expected) == (pytest.approx(900 / expected.steps), 1)
    half = estimate_run(plan_of(max_length=100))
    shorter = 900 / expected.tokens * half.tokens / half.steps
    assert seconds_a_step(tmp_path, half) == (pytest.approx(shorter), 1), "shorter rows, less time"
    assert seconds_a_step(tmp_path, estimate_run(plan_of(quantize="4bit"))) == (0.0, 0), "no comparable run"


def test_the_result_of_a_run_has_its_estimate_and_measurements(tmp_path: Path) -> None:
    base = tiny.make("llama", tmp_path / "llama")
    result = run_worker(config_of(spec_of("llama", base), tmp_path, "mine"), tmp_path)
    expected = result["estimate"]
    [event] = [event for event in read_events(tmp_path / "runs" / "mine") if event["kind"] == "estimate"]
    assert event["peak"] == expected["peak"] > 0 and expected["free"]["device"] in ("cpu", "cuda")
    assert set(result["measured"]["seconds"]) == {"start", "train", "evaluate"}
    assert result["measured"]["tokens"] == pytest.approx(expected["tokens"], rel=0.3)
    manifest = json.loads((tmp_path / "adapters" / "mine" / "1" / "manifest.json").read_text())
    assert manifest["config"]["gradient_checkpointing"] == "off"


def test_a_run_that_cannot_fit_is_refused_when_it_is_submitted_and_at_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny.make("bert", tmp_path / "bert")
    config = config_of(spec_of("bert", base), tmp_path, "large")
    monkeypatch.setattr(machine, "measure", lambda *_: FreeResources(memory=1000, disk=10**12))
    runs = Runs(Settings(home=tmp_path), STAND_IN)
    with pytest.raises(RunError, match="does not fit in memory"):
        runs.submit(config)
    assert runs.list() == []
    result = run_worker(config, tmp_path)
    assert (result["state"], result["what"]) == ("failed", "This run does not fit in memory.")
    assert run_worker(replace(config, name="anyway", anyway=True), tmp_path)["state"] == "done"


def test_rows_whose_columns_have_to_be_chosen_are_refused_when_they_are_submitted(tmp_path: Path) -> None:
    base = tiny.make("bert", tmp_path / "bert")
    rows = tmp_path / "rows.csv"
    rows.write_text("body,kind\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(20)), encoding="utf-8")
    spec = TabSpec("bert", str(base), "text-classification", Columns("text", "label"))
    runs, config = Runs(Settings(home=tmp_path), STAND_IN), TrainConfig.for_tab(spec, rows, "mine")
    for ask in (runs.plan, runs.submit):
        with pytest.raises(DataError, match="no column for") as caught:
            ask(config)
        assert "'body', 'kind'" in caught.value.why and "Choose" in caught.value.next
    assert runs.list() == []
