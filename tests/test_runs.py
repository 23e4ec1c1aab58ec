"""training/runs.py: the real child process on a tiny model; whatever ends it, the run says so; nothing half is seen."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from errors import DataError, RunError
from settings import REPOSITORY, Settings
from store.adapters import AdapterStore
from tasks import Columns, TabSpec
from tests import tiny
from tests.training_helpers import config_of, run_worker, spec_of, write_rows
from training.config import TrainConfig
from training.events import CONFIG, EVENTS, LOG, PROCESS, RESULT, read_events
from training.runs import Run, Runs

PATIENCE_S = 240
CANARY = "hf_" + "canary" * 6


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TabSpec:
    return spec_of("bert", tiny.make("bert", tmp_path_factory.mktemp("base") / "bert"))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    """The runs of a fresh home; whatever a failed test left running is ended."""
    for key in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(key, CANARY)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    home.mkdir()
    found = Runs(Settings(home=home, offline=True))
    yield found
    for run in found.list():
        if run.state == "running" and (run.folder / PROCESS).exists():
            found.cancel(run.id)


def endless(spec: TabSpec, home: Path, name: str = "endless") -> TrainConfig:
    return config_of(spec, home, name, max_steps=100_000, learning_rate=1e-5)


def wait(true: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ended(run: Run) -> Run:
    wait(lambda: run.state != "running")
    return run


def pid_of(run: Run) -> int:
    return int(json.loads((run.folder / PROCESS).read_text())["pid"])


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes() + Path(f"/proc/{pid}/cmdline").read_bytes()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def published(home: Path) -> list[str]:
    return [version.ref for version in AdapterStore(home).versions()]


def test_a_run_to_its_end_and_two_at_once(runs: Runs, spec: TabSpec, home: Path) -> None:
    started = [runs.start(config_of(spec, home, "twin")) for _ in range(2)]
    (home / "twin.csv").unlink()  # as an upload goes when its server stops: a run has its own copy
    assert all(run.state == "running" and run.result == {} for run in started)
    secrets = environment_of(pid_of(started[0]))
    assert CANARY.encode() not in secrets and b"GRAFT_HOME=" in secrets
    for run in started:
        assert ended(run).state == "done", run.result
    assert {run.result["version"] for run in started} == {"twin@1", "twin@2"} == set(published(home))
    run = started[0]
    assert run.result["card"]["metric"] == "accuracy" and "log" not in run.result
    assert (run.progress.phase, run.progress.step, run.progress.steps) == ("publish", 2, 2)
    assert [step for step, _ in run.progress.losses] == [1, 2]
    assert {r.id for r in Runs(Settings(home=home)).list()} == {r.id for r in started}
    assert not list(home.rglob(".staging-*"))
    assert CANARY not in "".join(p.read_text(errors="replace") for p in home.rglob("*") if p.is_file())
    runs.cancel(run.id)
    assert run.state == "done", "a run that has ended stays what it is"


def test_a_running_run_is_the_same_to_everybody_until_it_is_killed(runs: Runs, spec: TabSpec, home: Path) -> None:
    run = runs.start(endless(spec, home))
    wait(lambda: run.progress.step >= 3)
    other = Runs(Settings(home=home)).get(run.id)
    progress = other.progress
    assert other.state == "running" and other.config == run.config
    assert progress.phase == "train" and progress.steps == 100_000
    assert progress.left_s is not None and progress.left_s > 0
    os.kill(pid_of(run), signal.SIGKILL)
    assert ended(run).state == other.state == "failed"
    result = run.result
    assert "nothing was published" in result["what"] and "SIGKILL" in result["why"] and "smaller" in result["next"]
    assert result["log"], "the last lines of the log"
    assert {"what", "why", "next", "log"} <= set(other.result)
    assert published(home) == [] and not (home / "adapters" / "endless").exists()


def test_cancel_ends_a_run_and_marks_it(runs: Runs, spec: TabSpec, home: Path) -> None:
    run = runs.start(endless(spec, home))
    wait(lambda: run.progress.phase == "train")
    leader = pid_of(run)
    assert os.getpgid(leader) == leader == os.getsid(leader)
    runs.cancel(run.id)
    wait(lambda: not alive(leader))
    assert run.state == "cancelled" and run.result == {"state": "cancelled"}
    assert Runs(Settings(home=home)).get(run.id).state == "cancelled"
    assert published(home) == []
    runs.cancel(run.id)


def test_cancel_reaches_grandchildren_that_ignore_it(runs: Runs, spec: TabSpec, home: Path, tmp_path: Path) -> None:
    script = tmp_path / "leader.py"
    script.write_text(
        textwrap.dedent("""
        import subprocess, sys, time
        stubborn = "import signal as s, time; s.signal(s.SIGTERM, s.SIG_IGN); print(1, flush=True); time.sleep(900)"
        child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        time.sleep(600)
    """)
    )
    leader = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    grandchild = int(leader.stdout.readline())
    run = folder_of(runs, spec, home, "group")
    started = int(Path(f"/proc/{leader.pid}/stat").read_text().rpartition(")")[2].split()[19])
    (run.folder / PROCESS).write_text(json.dumps({"pid": leader.pid, "started": started}))
    assert run.state == "running" and alive(grandchild)
    runs.cancel(run.id)
    try:
        wait(lambda: not alive(leader.pid) and not alive(grandchild), patience_s=30)
    finally:
        with suppress(ProcessLookupError):
            os.kill(grandchild, signal.SIGKILL)
        leader.wait()
        leader.stdout.close()
    assert run.state == "cancelled"


def folder_of(runs: Runs, spec: TabSpec, home: Path, id: str) -> Run:
    """A run's folder as it is before its child writes anything."""
    folder = home / "runs" / id
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(endless(spec, home).to_json())
    return runs.get(id)


def missing_file(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    return dataclasses.replace(config, data=str(tmp_path / "gone.csv"))


def missing_base(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    return dataclasses.replace(config, model="nobody/nothing")


def base_with_code(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    folder = tiny.make("bert", tmp_path / "code")
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "auto_map": {"AutoModel": "evil.Evil"}}))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    return dataclasses.replace(config, model=str(folder))


CRASHES = {
    "no file": (missing_file, "gone.csv"),
    "no base": (missing_base, "nobody/nothing"),
    "remote code": (base_with_code, "remote code"),
}


@pytest.mark.parametrize("name", CRASHES)
def test_what_cannot_be_trained_is_told_with_its_name(
    runs: Runs, spec: TabSpec, home: Path, tmp_path: Path, name: str
) -> None:
    """One by a child of its own, and the others, which end in the same lines, by the worker in this process."""
    change, told = CRASHES[name]
    config = change(config_of(spec, home, "crash"), tmp_path)
    if name == "remote code":
        run = ended(runs.start(config))
        assert run.state == "failed" and run.result["log"]
        result, folder = run.result, run.folder
    else:
        result, folder = run_worker(config, home), home / "runs" / "crash"
    assert result["state"] == "failed" and all(isinstance(result[part], str) for part in ("what", "why", "next"))
    assert told in f"{result['what']} {result['why']}" and result["next"]
    assert "Traceback" not in f"{result['what']} {result['why']} {result['next']}"
    assert [event["phase"] for event in read_events(folder)] == ["data"], "no model was loaded"
    assert published(home) == [] and not (tmp_path / "canary").exists()


def test_a_run_whose_child_wrote_nothing_is_running_then_failed(runs: Runs, spec: TabSpec, home: Path) -> None:
    run = folder_of(runs, spec, home, "young")
    assert run.state == "running", "its process is only being started"
    with pytest.raises(RunError, match="only being started"):
        runs.cancel("young")
    os.utime(run.folder, (1, 1))
    assert run.state == "failed" and "gone" in run.result["why"]


@pytest.mark.parametrize("started", [1, 0])
def test_another_process_with_the_number_of_the_run_is_not_the_run(
    runs: Runs, spec: TabSpec, home: Path, started: int
) -> None:
    run = folder_of(runs, spec, home, "reused")
    (run.folder / PROCESS).write_text(json.dumps({"pid": os.getpid() if started else 2**22 - 1, "started": started}))
    assert run.state == "failed"
    runs.cancel("reused")


def test_a_result_that_comes_as_the_child_ends_is_seen(
    runs: Runs, spec: TabSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child writes its result and ends while the run is being looked at."""
    run = folder_of(runs, spec, home, "late")

    def ends(self: Run) -> bool:
        (self.folder / RESULT).write_text('{"state": "done", "version": "late@1"}')
        return False

    monkeypatch.setattr(Run, "_alive", ends)
    assert run.state == "done"
    (run.folder / RESULT).unlink()
    assert run.result["version"] == "late@1"


def test_progress_reads_what_is_whole(runs: Runs, spec: TabSpec, home: Path) -> None:
    run = folder_of(runs, spec, home, "slow")
    assert (run.progress.phase, run.progress.left_s) == ("start", None)
    events = [{"kind": "phase", "at": 0, "phase": "train"}]
    events += [{"kind": "step", "at": 10.0 + 2 * n, "step": n, "steps": 11, "loss": 1 / n} for n in (1, 2, 3)]
    text = "".join(json.dumps(event) + "\n" for event in events)
    (run.folder / EVENTS).write_text(text + '{"kind": "step", "at": 9')
    progress = run.progress
    assert (progress.phase, progress.step, progress.steps) == ("train", 3, 11)
    assert progress.left_s == pytest.approx(16)
    assert progress.losses == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]


def test_the_log_ends_with_its_last_lines(runs: Runs, spec: TabSpec, home: Path) -> None:
    run = folder_of(runs, spec, home, "talks")
    assert run.log_tail() == []
    (run.folder / LOG).write_bytes(b"old\n" * 20_000 + b"10%\r20%\rlast \xff\n\n")
    assert run.log_tail(3) == ["10%", "20%", "last \ufffd"]


def test_folders_that_are_no_runs_are_passed_over(runs: Runs, spec: TabSpec, home: Path) -> None:
    folder_of(runs, spec, home, "b-newer")
    folder_of(runs, spec, home, "a-older")
    for name, text in {"c-empty": None, "d-half": '{"name": "x', "e-list": "[]", "f-old": '{"name": "x"}'}.items():
        (home / "runs" / name).mkdir()
        if text is not None:
            (home / "runs" / name / CONFIG).write_text(text)
    (home / "runs" / "stray.txt").write_text("")
    assert [run.id for run in runs.list()] == ["b-newer", "a-older"]
    with pytest.raises(RunError, match="There is no run"):
        runs.get("../adapters")


def test_a_home_that_cannot_be_written_is_told(spec: TabSpec, home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be started"):
        Runs(Settings(home=tmp_path / "file")).start(endless(spec, home))


def test_inspect_tells_what_is_in_a_file(
    runs: Runs, spec: TabSpec, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows(spec, home / "rows")
    report = runs.inspect(path, spec)
    assert (report.file, report.usable, report.labels) == ("rows.csv", 24, {"0": 12, "1": 12})
    monkeypatch.chdir(home)
    assert runs.inspect(Path("rows.csv"), spec).usable == 24, "a relative path is the caller's"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", b"text,kind\n" + b"x,y\n" * 9, "no column for target"),
        ("a.csv", b"text,label\na,1\nb,1\n", "only"),
        ("a.csv", b"text,label\n\xff\xfe,1\n", "UTF-8"),
        ("a.csv", b"", "empty"),
        ("a.parquet", b"text,label\n", "says Parquet"),
        ("gone.csv", None, "not there"),
    ],
    ids=["column", "few rows", "bytes", "empty", "format", "missing"],
)  # fmt: skip
def test_inspect_refuses_with_the_readers_words(
    runs: Runs, spec: TabSpec, tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        runs.inspect(tmp_path / name, spec)
    assert told in str(caught.value) and "Traceback" not in str(caught.value)


def test_inspect_of_a_tab_that_does_not_learn(runs: Runs, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not learn"):
        runs.inspect(tmp_path / "a.csv", TabSpec("own", "", "causal-lm"))


def test_the_parent_imports_no_torch() -> None:
    heavy = ("torch", "transformers", "datasets", "gradio")
    code = f"import training.runs, sys; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_columns_come_back_as_they_were_chosen(runs: Runs, home: Path) -> None:
    spec = TabSpec("classification", "m", "text-classification", Columns(text="text", target="label"))
    path = home / "named.csv"
    path.write_text("body,kind\n" + "".join(f"row {i},{i % 2}\n" for i in range(10)))
    assert runs.inspect(path, spec, {"text": "body", "target": "kind"}).mapping == {"text": "body", "target": "kind"}
