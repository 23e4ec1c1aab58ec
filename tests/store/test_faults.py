"""A disk that fails and a process that dies, at every write, fsync and rename of what is acknowledged to people."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from settings import REPOSITORY, child_environment
from tests.helpers.faulty import SCENARIOS

LEAST = {"publish": 15, "promote": 4, "roll back": 4, "delete": 2, "correct": 2, "edit": 2, "submit": 6, "finish": 4}
"""Operations that each scenario has at least; fewer would mean that something is not counted."""


def test_every_scenario_is_explored() -> None:
    assert set(LEAST) == set(SCENARIOS)


@pytest.mark.parametrize("how", ["full", "die", "power"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_r11_r20_whatever_fails_what_was_there_is_whole_and_what_was_acknowledged_is_there(
    scenario: str, how: str, tmp_path: Path
) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "tests.helpers.faulty", scenario, how, str(tmp_path)], cwd=REPOSITORY,
        env=child_environment(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line for line in lines if line["problems"]] == []
    assert lines[-1]["acknowledged"] and len(lines) > LEAST[scenario]
    assert how == "full" or not any(line["acknowledged"] for line in lines[:-1]), "the dead acknowledge nothing"
