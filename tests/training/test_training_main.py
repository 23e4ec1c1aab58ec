"""python -m training, as a user types it, on a tiny base: exit codes, what is printed, what is published."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from settings import REPOSITORY, Settings
from store.adapters import AdapterStore
from tests.helpers import tiny
from tests.helpers.run_helpers import alive, pid_of
from tests.helpers.training_helpers import spec_of, write_rows
from tests.helpers.waiting import until
from training import __main__ as command
from training.cli import run_arguments
from training.runs.runs import Runs

pytestmark = pytest.mark.slow

PATIENCE_S = 240
QUICK = ["--max-steps", "2", "--batch-size", "4", "--max-length", "64", "--learning-rate", "0.05", "--held-out", "0.2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("bert", tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture
def rows(base: Path, home: Path) -> list[str]:
    """Arguments with a file of rows."""
    return ["--plugin", "classification", "--data", str(write_rows(spec_of("bert", base), home / "rows"))]


def start(home: Path, base: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GRAFT_")}
    environment |= {"GRAFT_HOME": str(home), "GRAFT_MODEL_CLASSIFICATION": str(base), "HF_HUB_OFFLINE": "1", **more}
    return subprocess.Popen(
        [sys.executable, "-m", "training", *arguments],
        cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(home: Path, base: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(home, base, *arguments)
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def test_a_version_is_published_promoted_and_its_card_printed(base: Path, home: Path, rows: list[str]) -> None:
    code, out, err = run(home, base, *rows, "--name", "tickets", "--promote", *QUICK)
    assert code == 0, err
    store = AdapterStore(home)
    version = store.get("tickets@1")
    assert "rows.csv: 24 of 24 rows can be used." in out
    for metric, value in version.card["new"].items():
        assert any(line.startswith(metric) and f"{value:.3f}" in line for line in out.splitlines())
    assert version.card["gate"]["why"] in out and "tickets@1 is published." in out
    live = store.live("classification")
    assert ("It answers now." in out) == version.card["gate"]["pass"] == (live is not None and live.ref == "tickets@1")
    assert len((out + err).splitlines()) < 60, "nobody watches a terminal"
    assert "\x1b" not in out and "Traceback" not in err
    assert version.manifest["base"]["id"] in (str(base), base.name) and version.manifest["measured"]["steps"] == 2


REFUSED = {
    "bad data": (["--name", "tickets"], "rows.csv has only 1 row to learn from."),
    "bad name": (["--name", "No Name"], "'No Name' cannot name an adapter."),
    "bad number": (["--name", "tickets", "--rank", "0"], "rank is 0: expected 1 to 256."),
    "bad columns": (["--name", "tickets", "--columns", "body"], "The choice of columns cannot be read."),
    "no base": (["--name", "tickets", "--base", "nobody/nothing"], "The model nobody/nothing is not available."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_arguments_are_refused_before_a_run_starts(
    case: str,
    base: Path,
    home: Path,
    rows: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options, message = REFUSED[case]
    if case == "bad data":
        Path(rows[-1]).write_text("text,label\nonly,one\n")
        code, _, err = run(home, base, *rows, *options)
    else:  # in this process, and without asking the plugins each time
        monkeypatch.setenv("GRAFT_HOME", str(home))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(run_arguments, "find_tab", lambda _, other: spec_of("bert", Path(other or base)))
        code, err = command.main([*rows, *options]), capsys.readouterr().err
    assert code == 2
    assert message in err and "Traceback" not in err and len(err.splitlines()) <= 3
    assert not (home / "runs").exists(), "no run, so no model was loaded"


def test_an_unknown_tab_is_refused_with_a_list_of_the_tabs(base: Path, home: Path) -> None:
    code, _, err = run(home, base, "--plugin", "painting", "--data", "x.csv", "--name", "tickets")
    assert code == 2
    assert "painting" in err and all(tab in err for tab in ("classification", "summarization", "generation"))


def test_a_detached_run_goes_on_alone_and_the_next_waits_its_turn(base: Path, home: Path, rows: list[str]) -> None:
    code, out, err = run(home, base, *rows, *QUICK, "--name", "first", "--detach")
    assert code == 0 and "has begun" in out, err
    code, out, err = run(home, base, *rows, *QUICK, "--name", "second")
    assert code == 0 and "second@1 is published." in out, err
    second, first = Runs(Settings(home=home)).list()
    assert [(run.name, run.state) for run in (second, first)] == [("second", "done"), ("first", "done")]
    assert second.started >= first.ended


def test_ctrl_c_before_the_run_has_begun_ends_quietly(base: Path, home: Path, rows: list[str]) -> None:
    begun, slow = home / "begun", home / "slow.py"
    slow.write_text(f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n")
    process = start(home, base, *rows, "--name", "tickets", GRAFT_PLUGINS=str(home))
    until(lambda: begun.exists() or process.poll() is not None, PATIENCE_S)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, "Cancelled; nothing was published.\n")
    assert Runs(Settings(home=home)).list() == []


def test_ctrl_c_cancels_the_run(base: Path, home: Path, rows: list[str]) -> None:
    endless = ["--max-steps", "100000", "--learning-rate", "0.00001"]
    process, runs = start(home, base, *rows, "--name", "tickets", *QUICK, *endless), Runs(Settings(home=home))
    until(lambda: any(run.progress.step for run in runs.list()) or process.poll() is not None, PATIENCE_S)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Cancelled; nothing was published." in err and "Traceback" not in err
    [found] = runs.list()
    assert found.state == "cancelled" and AdapterStore(home).versions() == [] and not alive(pid_of(found))
