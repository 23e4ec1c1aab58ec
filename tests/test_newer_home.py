"""A home in a later format is refused in a sentence: by the page, the commands and the process of a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from errors import GraftError
from settings import HOME_FORMAT, HOME_RECORD, REPOSITORY, Settings, child_environment
from store import files
from tests.helpers.child import run
from tests.helpers.run_helpers import begun, plain, published
from tests.helpers.waiting import until
from training.events import RESULT
from training.runs.run_process import GO
from training.runs.runs import Runs
from ui.web import server

pytestmark = pytest.mark.slow

RECORD = {"release": "9.1.0", "format": HOME_FORMAT + 1}
SENTENCE = "The home was written by a newer Graft, 9.1.0."


@pytest.fixture
def newer(home: Path) -> Path:
    files.write_json(home / HOME_RECORD, RECORD)
    return home


def contents(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


COMMANDS = {
    "page": ["app.py"],
    "runs": ["-m", "training", "runs"],
    "train": ["-m", "training", "--plugin", "classification", "--data", "examples/tickets.csv", "--name", "tickets"],
    "teach": ["-m", "training", "teach", "--plugin", "classification"],
    "import": ["-m", "training", "import", "nothing.zip", "--plugin", "classification", "--name", "theirs"],
    "plugins": ["-m", "plugins"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_newer_home_is_refused_in_one_line_and_left_as_it_is(newer: Path, name: str) -> None:
    before = contents(newer)
    done = run(*COMMANDS[name], GRAFT_HOME=str(newer))
    assert done.returncode == 2, done.stderr
    assert SENTENCE in done.stderr and "Update this Graft, or set GRAFT_HOME to another folder." in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and done.stdout == ""
    assert contents(newer) == before


def test_a_newer_home_interrupts_the_process_of_a_run_which_publishes_nothing(runs: Runs, newer: Path) -> None:
    """As when another installation has taken the home over while a run waited."""
    (newer / HOME_RECORD).unlink()
    paused = begun(runs, newer)
    runs.pause(paused.id)
    until(lambda: runs.get(paused.id).state == "paused")
    files.write_json(newer / HOME_RECORD, RECORD)
    command = [sys.executable, "-m", "training.runs.child", str(paused.folder)]
    env = child_environment(GRAFT_HOME=str(newer))
    done = subprocess.run(command, cwd=REPOSITORY, env=env, input=GO, capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (2, b"")
    result = files.read_json(paused.folder / RESULT)
    assert result["state"] == "interrupted" and result["what"] == SENTENCE and result["next"]
    assert published(newer) == []


def test_a_newer_home_is_refused_by_a_page_that_was_open_before(runs: Runs, newer: Path) -> None:
    with pytest.raises(GraftError, match=SENTENCE):
        runs.submit(plain(newer))
    with pytest.raises(GraftError, match=SENTENCE):
        server.check_home(Settings(home=newer))
    assert files.read_json(newer / HOME_RECORD) == RECORD and runs.list() == []


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"format": "x"}', '{"release": "0.1.0", "format": 0}'])
def test_a_missing_damaged_or_older_record_is_written_at_the_start(home: Path, content: str | None) -> None:
    if content is not None:
        (home / HOME_RECORD).write_text(content)
    assert Settings.from_env({"GRAFT_HOME": str(home)}).home == home
    server.check_home(Settings(home=home))
    assert files.read_json(home / HOME_RECORD)["format"] == HOME_FORMAT


def test_a_new_home_is_marked_by_its_first_run_too(runs: Runs, home: Path) -> None:
    runs.submit(plain(home))
    assert files.read_json(home / HOME_RECORD)["format"] == HOME_FORMAT
