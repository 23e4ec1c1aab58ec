"""training/loop/trainer.py and checkpoints.py: a resumed run has the losses and weights of an uninterrupted one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from errors import RunError
from settings import REPOSITORY, child_environment
from store.adapters import WEIGHTS, AdapterStore
from tests.helpers import tiny
from tests.helpers.training_helpers import config_of, run_folder, run_worker, spec_of
from tests.helpers.waiting import until
from training.config import TrainConfig
from training.events import PAUSE, RESULT, read_events
from training.loop import checkpoints, trainer
from training.loop.trainer import is_evaluated, schedule_factor

pytestmark = pytest.mark.slow

OFTEN = {"checkpoint_steps": 1, "evaluations": 3}
TWO_EPOCHS: dict[str, Any] = {"max_steps": 0, "epochs": 2.0, "batch_size": 2, "dropout": 0.1, **OFTEN}


def config_for(family: str, home: Path, name: str, **chosen: Any) -> TrainConfig:
    base = home / family
    spec = spec_of(family, base if base.exists() else tiny.make(family, base))
    return config_of(spec, home, name, **{**TWO_EPOCHS, **chosen})


WORKER = "import pathlib, sys; from training.worker import main; sys.exit(main(pathlib.Path(sys.argv[1])))"


def steps_of(folder: Path) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in read_events(folder) if event["kind"] == "step"}


def kill_at(step: int, config: TrainConfig, home: Path) -> None:
    """Let a process on one thread run the worker until it has made a step, and kill it."""
    folder = run_folder(config, home)
    command = [sys.executable, "-c", WORKER, str(folder)]
    env = child_environment(GRAFT_HOME=str(home), OMP_NUM_THREADS="1")
    child = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: child.poll() is not None or max(steps_of(folder), default=0) >= step, 600)
    child.kill()
    child.wait()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def finish(config: TrainConfig, home: Path) -> dict[str, torch.Tensor]:
    """Let a run end, in this process; returns the weights that it published."""
    result = run_worker(config, home)
    assert result["state"] == "done", result
    return load_file(AdapterStore(home).get(result["version"]).path / WEIGHTS)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_r11_r21_a_run_killed_three_times_is_the_same_run(family: str, tmp_path: Path) -> None:
    straight = config_for(family, tmp_path, "straight")
    wanted = finish(straight, tmp_path)
    losses = steps_of(tmp_path / "runs" / "straight")
    event = next(event for event in read_events(tmp_path / "runs" / "straight") if event["kind"] == "step")
    assert {"epoch", "learning_rate", "grad_norm", "tokens_per_s", "memory"} <= event.keys()
    assert [*losses] == [*range(1, event["steps"] + 1)] and len(losses) >= 10
    killed = config_for(family, tmp_path, "killed")
    folder = tmp_path / "runs" / "killed"
    for step in (2, len(losses) // 2, len(losses) - 2):
        kill_at(step, killed, tmp_path)
        assert not (folder / RESULT).exists()
    older, newest = sorted((folder / "checkpoints").glob("[0-9]*"))
    damaged = newest / "state.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    weights = finish(killed, tmp_path)
    resumed = [event["step"] for event in read_events(folder) if event["kind"] == "resume"]
    assert len(resumed) == 3 and resumed == sorted(resumed) and resumed[-1] == int(older.name)
    assert steps_of(folder) == losses and not (folder / "checkpoints").exists()
    assert weights.keys() == wanted.keys()
    assert all(torch.allclose(weights[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ("change", "why"),
    [({"learning_rate": 1e-3}, "learning_rate was"), ({"seed": 3}, "seed was"), ({}, "the rows are others")],
)
def test_r21_a_run_with_another_configuration_or_other_rows_is_not_resumed(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    config = config_for("bert", tmp_path, "changed")
    folder = run_folder(config, tmp_path)
    (folder / PAUSE).touch()
    assert run_worker(config, tmp_path)["state"] == "paused"
    (folder / PAUSE).unlink()
    if not change:
        Path(config.data).write_text(Path(config.data).read_text() + "one more row,1\n")
    result = run_worker(replace(config, **change), tmp_path)
    assert result["state"] == "failed" and why in result["why"] and "new run" in result["next"]


def test_r21_a_checkpoint_of_other_libraries_is_refused(tmp_path: Path) -> None:
    bound = checkpoints.binding(config_for("bert", tmp_path, "libraries"), "rows")
    assert {"torch", "transformers", "peft"} <= bound.keys()
    checkpoints.save(tmp_path, 1, {"weight": torch.ones(2)}, {"bound": bound})
    found = checkpoints.load(tmp_path, bound)
    assert found is not None and found[1]["step"] == 1
    with pytest.raises(RunError, match=r"torch was .* and is 99"):
        checkpoints.load(tmp_path, {**bound, "torch": "99"})


def test_r11_a_checkpoint_is_on_the_disk_before_it_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, through = tmp_path / "checkpoints", os.fsync
    synced: list[tuple[int, bool]] = []

    def fsync(handle: int) -> None:
        through(handle)
        synced.append((os.fstat(handle).st_ino, any(root.glob("[0-9]*"))))

    monkeypatch.setattr(os, "fsync", fsync)
    checkpoints.save(tmp_path, 1, {"weight": torch.ones(2)}, {})
    (folder,) = root.glob("[0-9]*")
    parts = [folder, *folder.iterdir()]
    assert len(parts) == 3 and {(part.stat().st_ino, False) for part in parts} <= {*synced}
    assert synced[-1] == (root.stat().st_ino, True)


def test_micro_batches_do_not_change_what_is_learned(tmp_path: Path) -> None:
    options = {"precision": "float32", "dropout": 0.0, "batch_size": 6}
    whole = finish(config_for("llama", tmp_path, "whole", micro_batch_tokens=100_000, **options), tmp_path)
    split = finish(config_for("llama", tmp_path, "split", micro_batch_tokens=1, **options), tmp_path)
    packed = finish(config_for("llama", tmp_path, "packed", packing=True, **options), tmp_path)
    recomputed = finish(config_for("llama", tmp_path, "again", gradient_checkpointing="on", **options), tmp_path)
    for other in (split, packed, recomputed):
        assert all(torch.allclose(whole[key], other[key], atol=2e-3) for key in whole)
    assert steps_of(tmp_path / "runs" / "whole") == pytest.approx(steps_of(tmp_path / "runs" / "split"), abs=1e-3)


def test_a_run_that_gets_worse_ends_early_and_its_best_state_is_published(tmp_path: Path) -> None:
    chosen = {"keep_best": True, "patience": 2, "evaluations": 40, "epochs": 40.0, "learning_rate": 0.9}
    config = config_for("bert", tmp_path, "early", **chosen)
    result = run_worker(config, tmp_path)
    events = read_events(tmp_path / "runs" / "early")
    evaluations = [event for event in events if event["kind"] == "eval"]
    least = min(event["loss"] for event in evaluations)
    best = [event for event in evaluations if event["loss"] == least]  # rounded in the events
    assert len(evaluations) < 40 and evaluations[-3:][0]["loss"] == least
    manifest = AdapterStore(tmp_path).get(result["version"]).manifest
    assert manifest["measured"]["best_step"] in [event["step"] for event in best]
    assert {"loss", "accuracy"} <= best[0].keys()


@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_validation_does_not_change_the_weights(quantize: str, tmp_path: Path) -> None:
    options = {"quantize": quantize, "dropout": 0.0}
    plain = finish(config_for("llama", tmp_path, "plain", evaluations=0, **options), tmp_path)
    evaluated = finish(config_for("llama", tmp_path, "evaluated", evaluations=9, **options), tmp_path)
    assert len([e for e in read_events(tmp_path / "runs" / "evaluated") if e["kind"] == "eval"]) > 5
    assert all(torch.equal(plain[key], evaluated[key]) for key in plain)


def test_r13_a_run_whose_loss_becomes_nan_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = trainer.summed_loss, []

    def poisoned(*args: Any) -> Any:
        calls.append(1)
        summed, logits = real(*args)
        return (summed * float("nan") if len(calls) == 2 else summed), logits

    monkeypatch.setattr(trainer, "summed_loss", poisoned)
    result = run_worker(config_for("bert", tmp_path, "midway"), tmp_path)
    assert "diverged" in result["what"] and "At step 2" in result["why"] and "lower learning rate" in result["next"]
    assert len(calls) == 2 and AdapterStore(tmp_path).versions() == []


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_learning_rate_rises_and_falls(schedule: str) -> None:
    rates = [schedule_factor(step, 100, 0.1, schedule) for step in range(100)]
    assert 0 < rates[0] < rates[5] < rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == (1.0 if schedule == "constant" else pytest.approx(0.0, abs=0.02))
    assert schedule_factor(0, 1, 0.05, schedule) == 1.0


def test_evaluations_are_even_and_the_last_follows_the_last_step() -> None:
    assert [step for step in range(1, 101) if is_evaluated(step, 100, 4)] == [25, 50, 75, 100]
    assert [step for step in range(1, 4) if is_evaluated(step, 3, 10)] == [1, 2, 3]
    assert not any(is_evaluated(step, 10, 0) for step in range(1, 11))


def test_the_peak_memory_of_a_process_is_its_own_and_not_its_parents() -> None:
    ballast = bytearray(b"1" * 1_000_000_000)
    code = "from training.loop.trainer import peak_memory; print(peak_memory())"
    env = child_environment(CUDA_VISIBLE_DEVICES="")  # on a GPU, its memory would be returned
    found = subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, env=env)
    assert 50_000_000 < int(found) < len(ballast)
