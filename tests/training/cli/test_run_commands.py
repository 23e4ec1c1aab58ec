"""training/cli/run_commands.py: listing, pausing, resuming, cancelling and deleting runs from a terminal."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.helpers.run_helpers import begun, pid_of, plain
from tests.helpers.waiting import until
from training import __main__ as training
from training.cli import run_commands, terminal
from training.runs.runs import Runs

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(home))


def output_of(capsys: Output, *arguments: str) -> str:
    """The output of a command of `python -m training` that succeeds."""
    assert training.main(arguments) == 0
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_the_table_has_a_line_for_each_run(runs: Runs, home: Path, capsys: Output) -> None:
    assert output_of(capsys, "runs").split() == list(run_commands.HEAD)
    first = begun(runs, home, "first")
    runs.submit(plain(home, "second"))
    lines = output_of(capsys, "runs").splitlines()
    assert lines[1].split()[1:4] == ["queued,", "1.", "second"]
    assert lines[2].split()[:2] == [first.id, "running"] and "first" in lines[2]
    (first.folder / "finish").touch()
    runs.wait(first.id)
    assert "first@1 accuracy 0.750" in output_of(capsys, "runs")


def test_a_run_is_paused_resumed_cancelled_and_deleted(runs: Runs, home: Path, capsys: Output) -> None:
    run = begun(runs, home)
    shown = output_of(capsys, "show", run.id)
    assert "step" in shown and str(run.folder) in shown
    assert training.main(["resume", run.id]) == 2 and "can be resumed" in capsys.readouterr().err
    assert "next step" in output_of(capsys, "pause", run.id)
    until(lambda: runs.get(run.id).state == "paused")
    runs.submit(plain(home, "other"))
    assert "waits its turn behind the run that goes on" in output_of(capsys, "resume", run.id)
    assert "cancelled" in output_of(capsys, "cancel", run.id)
    assert "deleted" in output_of(capsys, "delete", run.id) and not run.folder.exists()


def test_an_interrupted_run_is_shown_with_the_reason(runs: Runs, home: Path, capsys: Output) -> None:
    run = begun(runs, home, "chatty")
    assert output_of(capsys, "log", run.id).count("x") == 10 * 2**20
    os.kill(pid_of(run), signal.SIGKILL)
    runs.wait(run.id)
    shown = output_of(capsys, "show", run.id)
    assert "SIGKILL" in shown and "interrupted" in shown


@pytest.mark.parametrize("verb", run_commands.VERBS)
def test_an_unknown_run_is_refused_in_a_sentence(verb: str, capsys: Output) -> None:
    assert training.main([verb, "nothing"]) == 2
    assert capsys.readouterr().err == "There is no run 'nothing'. Choose one from the list.\n"


@pytest.mark.parametrize(
    ("file", "status", "message"), [("pause", 3, "resume 2"), ("fail", 1, "It was told to."), ("", 130, "Cancelled;")]
)
def test_a_followed_run_determines_the_exit_status(
    runs: Runs, home: Path, file: str, status: int, message: str, capsys: Output
) -> None:
    run = begun(runs, home)
    if file:
        (run.folder / file).touch()
    else:
        runs.cancel(run.id)
    assert terminal.print_result(runs.wait(run.id)) == status
    assert message in capsys.readouterr().err


def test_the_card_has_a_column_for_each_model(capsys: Output) -> None:
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
