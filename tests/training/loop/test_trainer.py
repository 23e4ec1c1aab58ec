"""training/loop/trainer.py and checkpoints.py: a run that was stopped and taken up again is the same run."""

from __future__ import annotations

import os
import signal
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
from tests.helpers.training_helpers import config_of, run_worker, spec_of
from tests.helpers.waiting import until
from training.config import TrainConfig
from training.events import CONFIG, PAUSE, RESULT, read_events
from training.loop import checkpoints, trainer
from training.loop.trainer import is_evaluated, schedule_factor

OFTEN = {"checkpoint_steps": 1, "evaluations": 3}
TWO_EPOCHS: dict[str, Any] = {"max_steps": 0, "epochs": 2.0, "batch_size": 2, "dropout": 0.1, **OFTEN}


def config_for(family: str, home: Path, name: str, **chosen: Any) -> TrainConfig:
    base = home / family
    spec = spec_of(family, base if base.exists() else tiny.make(family, base))
    return config_of(spec, home, name, **{**TWO_EPOCHS, **chosen})


WORKER = "import pathlib, sys; from training.worker import main; sys.exit(main(pathlib.Path(sys.argv[1])))"


def steps_of(folder: Path) -> dict[int, float]:
    return {event["step"]: event["loss"] for event in read_events(folder) if event["kind"] == "step"}


def start(config: TrainConfig, home: Path) -> subprocess.Popen[bytes]:
    """The worker as a process of its own, on one thread."""
    folder = home / "runs" / config.name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(config.to_json())
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder)],
        cwd=REPOSITORY,
        env=child_environment(GRAFT_HOME=str(home), OMP_NUM_THREADS="1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_at(step: int, config: TrainConfig, home: Path) -> None:
    """Let the worker run until it has made a step, and kill it."""
    child = start(config, home)
    until(lambda: child.poll() is not None or max(steps_of(home / "runs" / config.name), default=0) >= step, 600)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()


def pause(config: TrainConfig, home: Path) -> dict[str, Any]:
    """Let the run pause at its first step; its result."""
    folder = home / "runs" / config.name
    folder.mkdir(parents=True)
    (folder / PAUSE).touch()
    result = run_worker(config, home)
    (folder / PAUSE).unlink()
    return result


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of floats have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def finish(config: TrainConfig, home: Path) -> dict[str, torch.Tensor]:
    """Let the run end, in this process; the weights that it published."""
    result = run_worker(config, home)
    assert result["state"] == "done", result
    return load_file(AdapterStore(home).get(result["version"]).path / WEIGHTS)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_r21_a_run_killed_at_three_places_is_the_straight_run(family: str, tmp_path: Path) -> None:
    straight = config_for(family, tmp_path, "straight")
    wanted = finish(straight, tmp_path)
    losses = steps_of(tmp_path / "runs" / "straight")
    event = next(event for event in read_events(tmp_path / "runs" / "straight") if event["kind"] == "step")
    assert {"epoch", "learning_rate", "grad_norm", "tokens_per_s", "memory"} <= event.keys()
    assert [*losses] == [*range(1, event["steps"] + 1)] and len(losses) >= 10
    killed = config_for(family, tmp_path, "killed")
    folder = tmp_path / "runs" / "killed"
    places = (2, len(losses) // 2, len(losses) - 2)
    for place in places:
        kill_at(place, killed, tmp_path)
        assert not (folder / RESULT).exists()
    weights = finish(killed, tmp_path)
    resumed = [event["step"] for event in read_events(folder) if event["kind"] == "resume"]
    assert len(resumed) == 3 and resumed[0] >= 1 and resumed == sorted(resumed)
    assert steps_of(folder) == losses
    assert weights.keys() == wanted.keys()
    assert all(torch.allclose(weights[key], wanted[key]) for key in wanted)


def test_a_paused_run_says_where_it_is_and_goes_on(tmp_path: Path) -> None:
    wanted = finish(config_for("bert", tmp_path, "straight"), tmp_path)
    config = config_for("bert", tmp_path, "paused", checkpoint_steps=0)
    folder, result = tmp_path / "runs" / "paused", pause(config, tmp_path)
    assert (result["state"], result["step"]) == ("paused", 1) and result["steps"] > 1
    (folder / RESULT).unlink()
    weights = finish(config, tmp_path)
    assert all(torch.allclose(weights[key], wanted[key]) for key in wanted)
    assert not (folder / "checkpoints").exists()


@pytest.mark.parametrize(
    ("change", "why"),
    [({"learning_rate": 1e-3}, "learning_rate was"), ({"seed": 3}, "seed was"), ({}, "the rows are others")],
)
def test_r21_another_configuration_or_other_rows_do_not_go_on_from_a_checkpoint(
    change: dict[str, Any], why: str, tmp_path: Path
) -> None:
    config = config_for("bert", tmp_path, "changed")
    pause(config, tmp_path)
    if not change:
        Path(config.data).write_text(Path(config.data).read_text() + "one more row,1\n")
    result = run_worker(replace(config, **change), tmp_path)
    assert result["state"] == "failed" and why in result["why"] and "new run" in result["next"]


def test_r21_other_libraries_do_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    config = config_for("bert", tmp_path, "libraries")
    bound = checkpoints.binding(config, "rows")
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


def test_r11_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    config = config_for("bert", tmp_path, "damaged")
    folder = tmp_path / "runs" / "damaged"
    kill_at(4, config, tmp_path)
    kept = sorted((folder / "checkpoints").glob("[0-9]*"))
    assert len(kept) == 2
    newest = kept[-1] / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    finish(config, tmp_path)
    assert [e["step"] for e in read_events(folder) if e["kind"] == "resume"] == [int(kept[0].name)]


def test_micro_batches_do_not_change_what_is_learned(tmp_path: Path) -> None:
    options = {"precision": "float32", "dropout": 0.0, "batch_size": 6}
    whole = finish(config_for("llama", tmp_path, "whole", micro_batch_tokens=100_000, **options), tmp_path)
    split = finish(config_for("llama", tmp_path, "split", micro_batch_tokens=1, **options), tmp_path)
    packed = finish(config_for("llama", tmp_path, "packed", packing=True, **options), tmp_path)
    recomputed = finish(config_for("llama", tmp_path, "again", gradient_checkpointing="on", **options), tmp_path)
    for other in (split, packed, recomputed):
        assert all(torch.allclose(whole[key], other[key], atol=2e-3) for key in whole)
    assert steps_of(tmp_path / "runs" / "whole") == pytest.approx(steps_of(tmp_path / "runs" / "split"), abs=1e-3)


def test_the_best_state_is_published_and_a_run_that_gets_worse_ends_early(tmp_path: Path) -> None:
    chosen = {"keep_best": True, "patience": 2, "evaluations": 40, "epochs": 40.0, "learning_rate": 0.9}
    config = config_for("bert", tmp_path, "early", **chosen)
    result = run_worker(config, tmp_path)
    events = read_events(tmp_path / "runs" / "early")
    looks = [event for event in events if event["kind"] == "eval"]
    least = min(event["loss"] for event in looks)
    best = [event for event in looks if event["loss"] == least]  # as told, which is rounded
    assert len(looks) < 40 and looks[-3:][0]["loss"] == least
    manifest = AdapterStore(tmp_path).get(result["version"]).manifest
    assert manifest["measured"]["best_step"] in [event["step"] for event in best]
    assert {"loss", "accuracy"} <= best[0].keys()


@pytest.mark.parametrize("quantize", ["none", "4bit"])
def test_validation_on_the_way_changes_nothing(quantize: str, tmp_path: Path) -> None:
    options = {"quantize": quantize, "dropout": 0.0}
    blind = finish(config_for("llama", tmp_path, "blind", evaluations=0, **options), tmp_path)
    looking = finish(config_for("llama", tmp_path, "looking", evaluations=9, **options), tmp_path)
    assert len([e for e in read_events(tmp_path / "runs" / "looking") if e["kind"] == "eval"]) > 5
    assert all(torch.equal(blind[key], looking[key]) for key in blind)


def test_r13_a_loss_that_is_no_number_midway_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = trainer.row_loss, []

    def poisoned(*args: Any) -> Any:
        calls.append(1)
        summed, logits = real(*args)
        return (summed * float("nan") if len(calls) == 2 else summed), logits

    monkeypatch.setattr(trainer, "row_loss", poisoned)
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
    looked = [step for step in range(1, 101) if is_evaluated(step, 100, 4)]
    assert looked == [25, 50, 75, 100]
    assert [step for step in range(1, 4) if is_evaluated(step, 3, 10)] == [1, 2, 3]
    assert not any(is_evaluated(step, 10, 0) for step in range(1, 11))


def test_the_memory_of_a_run_is_its_own_and_not_that_of_who_started_it() -> None:
    ballast = bytearray(b"1" * 1_000_000_000)
    code = "from training.loop.trainer import peak_memory; print(peak_memory())"
    env = child_environment(CUDA_VISIBLE_DEVICES="")  # without the memory of a GPU, which would be told instead
    found = subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, env=env)
    assert 50_000_000 < int(found) < len(ballast)
