"""bench/endurance.py, briefly: a server under load answers everybody, and kills lose nothing that was acknowledged."""

from pathlib import Path

import pytest

from bench import endurance, soak
from tests.helpers import tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make("llama", tmp_path_factory.mktemp("base") / "llama")


def test_r11_r18_r31_kills_at_random_moments_lose_nothing_that_was_acknowledged(base: Path) -> None:
    (row,) = soak.run(["--kill", "0.1", "--base", str(base), "--seed", "1"])
    assert row["lost"] == 0, row
    assert row["rounds"] >= 1 and row["acknowledged"] > 3


def test_r12_r19_r26_under_load_everybody_is_answered(base: Path) -> None:
    requests, *figures = soak.run(["--soak", "0.3", "--base", str(base), "--seed", "1"])
    assert requests["unanswered"] == 0 and requests["answered"] > 5 and requests["swaps"] > 3, requests
    assert [row["what"] for row in figures] == ["memory", "threads", "files"]


def test_what_was_lost_is_noticed(tmp_path: Path) -> None:
    said = endurance.Acknowledged({"gone@1": "x"}, {"a question"}, {"gone@1"})
    assert len(said.lost(tmp_path)) == 3
    assert endurance._compared("memory", [50.0, *[100.0] * 3, *[103.0] * 3])["growth"] == 0.03
