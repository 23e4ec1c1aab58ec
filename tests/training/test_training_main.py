"""python -m training, as a user types it, on a tiny base: exit codes, what is printed, what is published."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from settings import REPOSITORY, Settings
from store.adapters import AdapterStore
from tests.helpers import tiny
from tests.helpers.training_helpers import spec_of, write_rows
from training import __main__ as command
from training.cli import train_command
from training.runs.runs import Runs

PATIENCE_S = 240
QUICK = ["--max-steps", "2", "--batch-size", "4", "--max-length", "64", "--learning-rate", "0.05", "--held-out", "0.2"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("bert", tmp_path_factory.mktemp("base") / "bert")


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


def rows(base: Path, home: Path) -> str:
    home.mkdir(parents=True, exist_ok=True)
    return str(write_rows(spec_of("bert", base), home / "rows"))


def test_a_version_is_published_promoted_and_its_card_printed(base: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = ["--plugin", "classification", "--data", rows(base, home), "--name", "tickets", "--promote", *QUICK]
    code, out, err = run(home, base, *arguments)
    assert code == 0, err
    store = AdapterStore(home)
    version = store.get("tickets@1")
    assert "rows.csv: 24 of 24 rows can be used." in out
    for figure, value in version.card["new"].items():
        assert any(line.startswith(figure) and f"{value:.3f}" in line for line in out.splitlines())
    assert version.card["gate"]["why"] in out and "tickets@1 is published." in out
    live = store.live("classification")
    assert ("It answers now." in out) == version.card["gate"]["pass"] == (live is not None and live.ref == "tickets@1")
    assert len((out + err).splitlines()) < 60, "nobody watches a terminal"
    assert "\x1b" not in out and "Traceback" not in err
    assert version.manifest["base"]["id"] in (str(base), base.name) and version.manifest["measured"]["steps"] == 2


def test_a_run_that_fails_says_why_and_exits_with_1(base: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = [
        "--plugin",
        "classification",
        "--data",
        rows(base, home),
        "--name",
        "tickets",
        *QUICK,
        "--targets",
        "nowhere",
    ]
    code, out, err = run(home, base, *arguments)
    assert code == 1
    assert "has no layer named nowhere; its layers are" in err
    assert "is published" not in out and AdapterStore(home).versions() == []


REFUSED = {
    "bad data": (["--name", "tickets"], "text,label\nonly,one\n", "rows.csv has only 1 row to learn from."),
    "bad name": (["--name", "No Name"], None, "'No Name' cannot name an adapter."),
    "bad number": (["--name", "tickets", "--rank", "0"], None, "rank is 0: expected 1 to 256."),
    "bad columns": (["--name", "tickets", "--columns", "body"], None, "The choice of columns cannot be read."),
    "no base": (["--name", "tickets", "--base", "nobody/nothing"], None, "The model nobody/nothing is not available."),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_refused_before_anything_starts(
    case: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options, content, told = REFUSED[case]
    home = tmp_path / "home"
    data = rows(base, home)
    if content:
        Path(data).write_text(content)
    arguments = ["--plugin", "classification", "--data", data, *options]
    if case == "bad data":
        code, _, err = run(home, base, *arguments)
    else:  # in this process, and without asking the plugins each time
        monkeypatch.setenv("GRAFT_HOME", str(home))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr(train_command, "find_tab", lambda _, other: spec_of("bert", Path(other or base)))
        code, err = command.main(arguments), capsys.readouterr().err
    assert code == 2
    assert told in err and "Traceback" not in err and len(err.splitlines()) <= 3
    assert not (home / "runs").exists(), "no run, so no model was loaded"


def test_an_unknown_tab_is_told_with_those_there_are(base: Path, tmp_path: Path) -> None:
    code, _, err = run(tmp_path, base, "--plugin", "painting", "--data", "x.csv", "--name", "tickets")
    assert code == 2
    assert "painting" in err and all(tab in err for tab in ("classification", "summarization", "generation"))


def test_a_detached_run_goes_on_alone_and_the_next_waits_its_turn(base: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = ["--plugin", "classification", "--data", rows(base, home), *QUICK]
    code, out, err = run(home, base, *arguments, "--name", "first", "--detach")
    assert code == 0 and "has begun" in out, err
    code, out, err = run(home, base, *arguments, "--name", "second")
    assert code == 0 and "second@1 is published." in out, err
    runs = Runs(Settings(home=home)).list()
    assert [(found.name, found.state) for found in runs] == [("second", "done"), ("first", "done")]
    assert runs[0].started >= runs[1].ended


def test_ctrl_c_before_the_run_has_begun_ends_quietly(base: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "plugins").mkdir()
    begun = tmp_path / "begun"
    slow = f"import pathlib, time\npathlib.Path({str(begun)!r}).touch()\ntime.sleep(600)\n"
    (tmp_path / "plugins" / "slow.py").write_text(slow)
    arguments = ["--plugin", "classification", "--data", rows(base, home), "--name", "tickets"]
    process = start(home, base, *arguments, GRAFT_PLUGINS=str(tmp_path / "plugins"))
    deadline = time.monotonic() + PATIENCE_S
    while not begun.exists():
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (130, "Cancelled; nothing was published.\n")
    assert Runs(Settings(home=home)).list() == []


def test_ctrl_c_cancels_the_run(base: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    arguments = ["--plugin", "classification", "--data", rows(base, home), "--name", "tickets", *QUICK]
    process = start(home, base, *arguments, "--max-steps", "100000", "--learning-rate", "0.00001")
    runs = Runs(Settings(home=home))
    deadline = time.monotonic() + PATIENCE_S
    while not any(r.progress.step for r in runs.list()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert "Cancelled; nothing was published." in err and "Traceback" not in err
    [found] = runs.list()
    assert found.state == "cancelled" and AdapterStore(home).versions() == []
    assert not Path(f"/proc/{json.loads((found.folder / 'process.json').read_text())['pid']}").exists()
