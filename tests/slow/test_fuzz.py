"""bench/fuzz.py, briefly: damaged files and odd names are read or refused in words, and nothing else happens."""

import random
from pathlib import Path

import pytest

from bench import fuzz


@pytest.mark.parametrize("target", fuzz.CASES)
def test_r16_r17_r23_nothing_but_typed_errors_leaves(target: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fuzz, "FOUND", tmp_path / "found")
    (row,) = fuzz.run([target, "--seconds", "6", "--seed", "7"])
    assert row["problems"] == 0, row["first"]
    assert row["cases"] > 20 and row["refused"] > 0


def test_what_is_no_typed_error_is_found_and_written_down(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fuzz, "FOUND", tmp_path / "found")

    def case(chance: random.Random, folder: Path) -> None:
        raise ValueError("raw")

    problems: list[str] = []
    fuzz.tried("names", case, "1-1", tmp_path, problems)
    assert "ValueError: raw" in problems[0] and (tmp_path / "found" / "names-1-1.txt").exists()
