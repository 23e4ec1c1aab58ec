"""training/loop/tracking.py: TensorBoard and Trackio themselves read the metrics back; nothing leaves the machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from accelerate.tracking import GeneralTracker
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from errors import ConfigError
from settings import REPOSITORY, Settings, child_environment
from tests.conftest import Trained
from tests.helpers import tiny
from tests.helpers.training_helpers import config_of, run_folder, run_worker, spec_of
from training.config import TENSORBOARD, TRACKIO
from training.events import Events
from training.loop import tracking
from training.loop.tracking import Tracking
from training.runs.runs import Runs

pytestmark = pytest.mark.slow

READ = """
import json, sys, trackio
run, = trackio.Api().runs(sys.argv[1])
from trackio.sqlite_storage import SQLiteStorage
print(json.dumps({"name": run.name, "config": run.config, "logs": SQLiteStorage.get_logs(sys.argv[1], run.name)}))
"""


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """The metrics that TensorBoard reads of a run."""
    found = EventAccumulator(str(folder / TENSORBOARD))
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def trackio_run(home: Path, project: str) -> dict[str, Any]:
    """The one run of a project, as Trackio reads it."""
    env = child_environment(TRACKIO_DIR=str(home / TRACKIO), PYTHONPATH=":".join(sys.path))
    child = subprocess.run([sys.executable, "-c", READ, project], env=env, capture_output=True, text=True, check=True)
    return json.loads(child.stdout.splitlines()[-1])


def test_a_run_is_read_back_with_both(tmp_path: Path) -> None:
    """A run is queued and carried out by its own process; the packages' own readers return its curves."""
    spec = spec_of("bert", tiny.make("bert", tmp_path / "bert"))
    runs = Runs(Settings(home=tmp_path, plugins=REPOSITORY / "plugins"))
    config = config_of(spec, tmp_path, "seen", track="both", max_steps=4, evaluations=2)
    run = runs.wait(runs.submit(config).id)
    assert run.state == "done", run.result
    curves, card = run.progress.curves, run.result["card"]
    found = scalars(run.folder)
    for name in ("loss", "learning_rate", "tokens_per_s", "memory", "grad_norm"):
        (steps, wanted), (seen_at, values) = zip(*curves[name], strict=True), zip(*found[f"train/{name}"], strict=True)
        assert seen_at == steps and values == pytest.approx(wanted, rel=1e-6), name
    assert [step for step, _ in found["held_out/loss"]] == [step for step, _ in curves["eval_loss"]]
    assert found["card_new/accuracy"] == [(4, pytest.approx(card["new"]["accuracy"]))]
    seen = trackio_run(tmp_path, "seen")
    assert seen["name"] == run.id and seen["config"]["learning_rate"] == config.learning_rate
    losses = [(row["step"], row["train/loss"]) for row in seen["logs"] if "train/loss" in row]
    assert losses == [tuple(point) for point in curves["loss"]]
    assert [row["card_new/log_loss"] for row in seen["logs"] if "card_new/log_loss" in row] == [card["new"]["log_loss"]]
    assert "goes on without it" not in "".join(run.log_tail(200))


def step(n: int) -> dict[str, Any]:
    return {"step": n, "steps": 9, "loss": 1 / n, "tokens_per_s": 10.0}


PART_OF_A_RUN = """
import sys
from pathlib import Path
def forbid(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("ASKED", event, args, file=sys.stderr)  # Trackio would keep the error to itself
        raise PermissionError(f"{event} {args}")
sys.addaudithook(forbid)
from training.config import TrainConfig
from training.events import CONFIG, Events
from training.loop.tracking import Tracking
folder = Path(sys.argv[1])
events = Events(folder)
with Tracking(TrainConfig.from_json((folder / CONFIG).read_text()), folder) as tracking:
    events.listen(tracking.log_event)
    for n in range(int(sys.argv[2]), int(sys.argv[3])):
        events.emit("step", step=n, steps=9, loss=1 / n)
"""


def test_a_resumed_run_continues_its_curves_and_nothing_goes_out(bert: Trained, tmp_path: Path) -> None:
    """A token lies on this machine, with which Trackio could ask the Hub; the child refuses every connection."""
    folder = run_folder(config_of(bert.spec, tmp_path, "kept", track="both"), tmp_path, "20260101-000000-abcdef")
    token = tmp_path / "cache" / "token"
    token.parent.mkdir()
    token.write_text("hf_notatoken")
    env = child_environment(TRACKIO_DIR=str(tmp_path / TRACKIO), PYTHONPATH=":".join([str(REPOSITORY), *sys.path]))
    env["HF_HOME"] = str(token.parent)
    for first, last in ((1, 6), (4, 10)):  # killed after step 5, resumed from a checkpoint at step 3
        command = [sys.executable, "-c", PART_OF_A_RUN, str(folder), str(first), str(last)]
        child = subprocess.run(command, env=env, cwd=REPOSITORY, capture_output=True, text=True)
        assert child.returncode == 0 and "Traceback" not in child.stderr and "ASKED" not in child.stderr, child.stderr
        time.sleep(1)  # TensorBoard's files are named by the second
    wanted = [(n, pytest.approx(1 / n)) for n in range(1, 10)]
    assert scalars(folder)["train/loss"] == wanted
    logs = trackio_run(tmp_path, "kept")["logs"]
    assert [(row["step"], row["train/loss"]) for row in logs] == wanted
    assert not list(tmp_path.glob("cache/trackio*"))


def test_a_missing_package_is_named_before_anything_starts(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)  # as if it were not there
    config = config_of(bert.spec, tmp_path, "none", track="both")
    with pytest.raises(ConfigError, match=r"trackio is not installed.*pip install trackio\."):
        Runs(Settings(home=tmp_path)).submit(config)
    assert not list((tmp_path / "runs").glob("*"))
    result = run_worker(config, tmp_path)
    assert result["state"] == "failed" and "pip install trackio" in result["next"]


class Broken(GeneralTracker):
    """A tracker whose disk is full."""

    name, requires_logging_directory, tracker = "broken", False, None

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def log(self, values: Mapping[str, float], step: int | None = None, **_: Any) -> None:
        self.asked += 1
        raise OSError(28, "No space left on device")

    finish = log


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    bert: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, config = Broken(), config_of(bert.spec, tmp_path, "full", track="both")
    monkeypatch.setitem(tracking.START, TRACKIO, lambda *_: broken)
    events = Events(tmp_path)
    with Tracking(config, tmp_path) as found:
        events.listen(found.log_event)
        for n in (1, 2):
            events.emit("step", **step(n))
        events.phase("evaluate")
    assert broken.asked == 1 and "goes on without it" in caplog.text
    assert [n for n, _ in scalars(tmp_path)["train/loss"]] == [1, 2]
    other = tmp_path / "other"
    other.mkdir()
    (other / TENSORBOARD).write_text("a file where its folder should be")
    with Tracking(config, other) as found:
        found.log_card({"new": {"loss": 1.0}})
    assert "could not be started" in caplog.text


def test_without_tracking_nothing_is_written(bert: Trained, tmp_path: Path) -> None:
    with Tracking(config_of(bert.spec, tmp_path, "plain"), tmp_path) as found:
        found.log_event({"kind": "step", "at": time.time(), **step(1)})
    assert not (tmp_path / TENSORBOARD).exists()
