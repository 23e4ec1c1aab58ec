"""training/cli/run_commands.py: what is done with runs that there are, from a terminal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers.run_helpers import begun, pid_of, plain, wait
from training import __main__ as training
from training.cli import run_commands, terminal
from training.runs.runs import Runs

Said = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(home))


def said(capsys: Said, *arguments: str) -> str:
    """What a command of `python -m training` prints that succeeds."""
    assert training.main(arguments) == 0
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_the_table_has_a_line_for_each_run(runs: Runs, home: Path, capsys: Said) -> None:
    assert said(capsys, "runs").split() == list(run_commands.HEAD)
    first = begun(runs, home, "first")
    runs.submit(plain(home, "second"))
    lines = said(capsys, "runs").splitlines()
    assert lines[1].split()[1:4] == ["queued,", "1.", "second"]
    assert lines[2].split()[:2] == [first.id, "running"] and "first" in lines[2]
    (first.folder / "finish").touch()
    runs.wait(first.id)
    assert "first@1 accuracy 0.750" in said(capsys, "runs")


def test_a_run_is_paused_resumed_cancelled_and_deleted(runs: Runs, home: Path, capsys: Said) -> None:
    run = begun(runs, home)
    assert "step" in said(capsys, "show", run.id) and str(run.folder) in said(capsys, "show", run.id)
    assert "next step" in said(capsys, "pause", run.id)
    wait(lambda: runs.get(run.id).state == "paused")
    runs.submit(plain(home, "other"))
    assert "waits its turn behind the run that goes on" in said(capsys, "resume", run.id)
    assert "cancelled" in said(capsys, "cancel", run.id)
    assert "deleted" in said(capsys, "delete", run.id) and not run.folder.exists()


def test_a_run_that_was_interrupted_says_why(runs: Runs, home: Path, capsys: Said) -> None:
    run = begun(runs, home, "chatty")
    assert said(capsys, "log", run.id).count("x") == 10 * 2**20
    os.kill(pid_of(run), signal.SIGKILL)
    runs.wait(run.id)
    shown = said(capsys, "show", run.id)
    assert "SIGKILL" in shown and "interrupted" in shown


@pytest.mark.parametrize("verb", run_commands.VERBS)
def test_an_unknown_run_is_refused_in_a_sentence(verb: str, capsys: Said) -> None:
    assert training.main([verb, "nothing"]) == 2
    assert capsys.readouterr().err == "There is no run 'nothing'. Choose one from the list.\n"


def test_what_is_not_possible_is_refused(runs: Runs, home: Path, capsys: Said) -> None:
    run = begun(runs, home)
    assert training.main(["resume", run.id]) == 2
    assert "can be resumed" in capsys.readouterr().err


@pytest.mark.parametrize(("state", "code"), [("paused", 3), ("cancelled", 130), ("failed", 1)])
def test_the_exit_code_of_a_run_that_was_followed(runs: Runs, home: Path, state: str, code: int, capsys: Said) -> None:
    run = begun(runs, home)
    if state == "cancelled":
        runs.cancel(run.id)
    else:
        (run.folder / {"paused": "pause", "failed": "fail"}[state]).touch()
    assert terminal.print_result(runs.wait(run.id)) == code
    assert {"paused": f"resume {run.id}", "cancelled": "Cancelled;", "failed": "It was told to."}[
        state
    ] in capsys.readouterr().err


def test_the_card_has_a_column_for_each_contender(capsys: pytest.CaptureFixture[str]) -> None:
    card = {
        "held_out": 12, "base": {"accuracy": 0.5}, "live": {"accuracy": 0.75}, "new": {"accuracy": 1.0},
        "fixed": 3, "broken": 0, "gate": {"pass": True, "why": "accuracy 0.750 (a@1) -> 1.000"},
    }  # fmt: skip
    terminal.print_card(card)
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0].split() == ["12", "held-out", "rows", "base", "live", "new"]
    assert lines[1].split() == ["accuracy", "0.500", "0.750", "1.000"]
    assert lines[2] == "3 rows fixed, 0 broken. accuracy 0.750 (a@1) -> 1.000"
    terminal.print_card({**card, "live": None})
    assert capsys.readouterr().out.strip().splitlines()[0].split()[-2:] == ["base", "new"]
