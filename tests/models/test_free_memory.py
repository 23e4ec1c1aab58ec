"""models/memory_use.py: what the machine has, within what control groups leave."""

from __future__ import annotations

from pathlib import Path

from models import memory_use


def test_limits_of_a_control_group_count(tmp_path: Path) -> None:
    for name, text in (
        ("memory.max", "1000\n"),
        ("memory.current", "700\n"),
        ("memory.stat", "anon 1\ninactive_file 50\n"),
    ):
        (tmp_path / name).write_text(text)
    assert memory_use._left(tmp_path) == 350
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_use._left(tmp_path) == memory_use.UNLIMITED


def test_something_is_free_here_and_it_is_not_without_end() -> None:
    assert 0 < memory_use.free() < 1 << 50
