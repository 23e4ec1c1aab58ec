"""training/runs/child.py: the real worker on a tiny model, from the queue to a version, with nobody looking."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from settings import REPOSITORY, Settings, child_environment
from store import files
from tasks import TabSpec
from tests.helpers import tiny
from tests.helpers.child import run as run_python
from tests.helpers.run_helpers import alive, blocked, end_all, pid_of, published
from tests.helpers.training_helpers import config_of, spec_of
from tests.helpers.waiting import until
from training.config import TrainConfig
from training.events import CONFIG, EVENTS, PAUSE, RESULT, read_events
from training.runs import child
from training.runs.child import DEVICE_LOCK, NEVER_BEGAN
from training.runs.run_process import GO
from training.runs.runs import Runs

pytestmark = pytest.mark.slow

PATIENCE_S = 240
CANARY = "hf_" + "canary" * 6


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TabSpec:
    return spec_of("bert", tiny.make("bert", tmp_path_factory.mktemp("base") / "bert"))


@pytest.fixture
def real(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """Runs with the real worker; whatever a failed test left running is ended."""
    for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, CANARY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = Runs(Settings(home=home, offline=True))
    yield found
    end_all(found)


def test_r06_two_real_runs_one_after_the_other_with_nobody_looking(real: Runs, spec: TabSpec, home: Path) -> None:
    """The first worker starts the second: neither page nor terminal is there meanwhile."""
    first, second = (real.submit(config_of(spec, home, "twin")) for _ in range(2))
    (home / "twin.csv").unlink()  # as an upload goes when its server stops: a run has its own copy
    assert (first.state, first.result, second.state, second.place) == ("running", {}, "queued", 1)
    secrets = Path(f"/proc/{pid_of(first)}/environ").read_bytes() + Path(f"/proc/{pid_of(first)}/cmdline").read_bytes()
    assert CANARY.encode() not in secrets and b"GRAFT_HOME=" in secrets
    until(lambda: (second.folder / RESULT).exists(), PATIENCE_S)
    until(lambda: not alive(pid_of(second)), PATIENCE_S)  # its last acts remove files
    first, second = real.get(first.id), real.get(second.id)
    assert (first.state, second.state) == ("done", "done"), (first.result, second.result)
    assert [first.version, second.version] == ["twin@1", "twin@2"] and set(published(home)) == {"twin@1", "twin@2"}
    assert first.metric == first.result["card"]["metric"] == "accuracy"
    assert first.figure == first.result["card"]["new"]["accuracy"] and "log" not in first.result
    assert second.started is not None and first.ended is not None and second.started >= first.ended
    assert (first.progress.phase, first.progress.step, first.progress.steps) == ("publish", 2, 2)
    assert [step for step, _ in first.progress.curves["loss"]] == [1, 2]
    assert not [path for path in home.rglob(".staging-*")]
    assert CANARY not in "".join(p.read_text(errors="replace") for p in home.rglob("*") if p.is_file())
    real.cancel(first.id)
    assert real.get(first.id).state == "done", "a run that has ended stays what it is"


def test_a_real_run_is_cancelled_and_the_next_is_paused_and_resumed(real: Runs, spec: TabSpec, home: Path) -> None:
    run = real.submit(config_of(spec, home, "endless", max_steps=100_000, learning_rate=1e-5))
    after = real.submit(config_of(spec, home, "after", max_steps=60))
    until(lambda: run.progress.left_s, PATIENCE_S)
    assert run.progress.phase == "train" and run.progress.steps == 100_000
    leader = pid_of(run)
    assert os.getpgid(leader) == leader == os.getsid(leader)
    assert Path(f"/proc/{leader}/oom_score_adj").read_text() == "1000\n", "the first to go where memory is short"
    real.cancel(run.id)
    until(lambda: not alive(leader))
    assert (real.get(run.id).state, real.get(run.id).result) == ("cancelled", {"state": "cancelled"})

    until(lambda: after.progress.step >= 3, PATIENCE_S)
    real.pause(after.id)
    assert real.wait(after.id).state == "paused", real.get(after.id).result
    paused = real.get(after.id)
    assert paused.resumable and 3 <= paused.result["step"] == paused.progress.step < 60
    assert published(home) == []
    real.resume(after.id)
    ended = real.wait(after.id)
    assert (ended.state, published(home)) == ("done", ["after@1"]), ended.result
    assert [step for step, _ in ended.progress.curves["loss"]] == list(range(1, 61))


LIMITED = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from settings import Settings
from training.runs import child
settings = replace(Settings.from_env(), run_seconds=0)
Settings.from_env = lambda: settings
code = child.main(Path(sys.argv[1]))
print(code, resource.getrlimit(resource.RLIMIT_DATA)[0] > 0)
"""


def test_r12_a_real_run_has_its_limits_of_time_and_memory(spec: TabSpec, home: Path) -> None:
    folder = folder_of(config_of(spec, home, "limited", max_steps=40), home)
    process = start(folder, home, GO, "-c", LIMITED)
    assert process.communicate(timeout=PATIENCE_S)[0] == b"0 True\n", "a limit of memory is set, where there was none"
    assert files.read_json(folder / RESULT)["state"] == "paused"


def start(folder: Path, home: Path, word: bytes, *code: str) -> subprocess.Popen[bytes]:
    """The child as `Runs` starts it, given `word` instead of the byte it waits for."""
    process = subprocess.Popen(
        [sys.executable, *(code or ("-m", "training.runs.child")), str(folder)],
        cwd=REPOSITORY, env=child_environment(GRAFT_HOME=str(home)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    process.stdin.write(word)
    process.stdin.close()
    process.stdin = None
    return process


def run_to_end(process: subprocess.Popen[bytes]) -> int:
    process.communicate(timeout=PATIENCE_S)
    return process.returncode


@pytest.mark.parametrize("word", [b"", b"x"])
def test_a_child_whose_start_was_not_recorded_does_nothing(spec: TabSpec, home: Path, word: bytes) -> None:
    folder = folder_of(config_of(spec, home, "unknown"), home)
    assert run_to_end(start(folder, home, word)) == NEVER_BEGAN
    assert [path.name for path in folder.iterdir()] == [CONFIG]


def test_two_children_never_work_at_once_however_they_were_started(spec: TabSpec, home: Path) -> None:
    folder = folder_of(config_of(spec, home, "patient"), home)
    with files.lock(home / DEVICE_LOCK):
        child = start(folder, home, GO)
        lock = (home / DEVICE_LOCK).stat().st_ino
        until(lambda: f" {child.pid} " in blocked(lock))
        assert child.poll() is None and not (folder / EVENTS).exists(), "it waits, and has loaded nothing"
        assert "libtorch" not in Path(f"/proc/{child.pid}/maps").read_text()
    assert run_to_end(child) == 0 and (folder / RESULT).exists()


def folder_of(config: TrainConfig, home: Path) -> Path:
    folder = home / "runs" / config.name
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(config.to_json())
    return folder


def test_r01_a_run_on_a_base_with_code_fails_with_the_reason(
    real: Runs, spec: TabSpec, home: Path, tmp_path: Path
) -> None:
    base = tiny.make("bert", tmp_path / "code")
    values = files.read_json(base / "config.json")
    files.write_json(base / "config.json", {**values, "auto_map": {"AutoModel": "evil.Evil"}})
    (base / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    run = real.wait(real.submit(replace(config_of(spec, home, "crash"), model=str(base))).id)
    sentences = [run.result[part] for part in ("what", "why", "next")]
    assert run.state == "failed" and run.result["log"] and all(sentences)
    assert "remote code" in " ".join(sentences) and "Traceback" not in " ".join(sentences)
    assert [event["phase"] for event in read_events(run.folder)] == ["data"], "no model was loaded"
    assert published(home) == [] and not (tmp_path / "canary").exists()


TAKES = """
from types import SimpleNamespace
from settings import Settings
from training.runs import child
held = bytearray(50 * 2**20)
data = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
most = int(data.split()[1]) * 1024 + 300 * 2**20  # libraries for a GPU have hundreds of MB of data themselves
estimate = SimpleNamespace(peak=0, available=SimpleNamespace(gpu=0))
print(child.limit_memory(estimate, Settings(run_memory_bytes=most)) - most)
try:
    bytearray(2**30)
except MemoryError:
    print("refused")
bytearray(50 * 2**20)
print("goes on")
"""


def test_r12_memory_beyond_the_limit_fails_in_the_run_alone() -> None:
    assert run_python("-c", TAKES).stdout.split("\n")[:3] == ["0", "refused", "goes on"]


@pytest.mark.parametrize(("gpu", "chosen", "limit"), [
    (0, 0, int(2e9) + child.MEMORY_BESIDE), (0, 5 * 10**8, 5 * 10**8), (8 * 10**9, 0, 0), (8 * 10**9, 700, 700),
])  # fmt: skip
def test_r12_the_limit_is_twice_the_estimate_or_what_the_operator_chose(
    gpu: int, chosen: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: seen.append((kind, limits[0])))
    estimate = SimpleNamespace(peak=10**9, available=SimpleNamespace(gpu=gpu))
    assert child.limit_memory(estimate, Settings(run_memory_bytes=chosen)) == limit
    assert seen == ([(resource.RLIMIT_DATA, limit)] if limit else [])


def time_out(folder: Path, grace_s: float, then: str) -> int:
    """The exit status of a process whose time is over at once and that does `then`."""
    code = f"""
import sys, time; from pathlib import Path; from training.runs import child
child.limit_time(Path(sys.argv[1]), 0.01, grace_s={grace_s})
{then}"""
    return run_python("-c", code, str(folder)).returncode


def test_r12_a_run_whose_time_is_over_is_paused_and_ended_if_it_does_not_pause(tmp_path: Path) -> None:
    assert time_out(tmp_path, 900, f"while not (Path(sys.argv[1]) / {PAUSE!r}).exists(): time.sleep(0.01)") == 0
    (tmp_path / PAUSE).unlink()
    assert time_out(tmp_path, 0.01, "time.sleep(60)") == child.NEVER_PAUSED
    assert (tmp_path / PAUSE).exists()
