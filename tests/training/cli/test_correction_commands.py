"""The commands `corrections`, `plugins`, `bases` and `estimate`, with the built-in tabs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import tiny
from tests.helpers.training_helpers import spec_of, write_rows
from training import __main__ as training

pytestmark = pytest.mark.slow


def test_corrections_are_kept_changed_and_exported(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(home))

    def output_of(act: str, *arguments: str) -> str:
        assert training.main(["corrections", act, "--plugin", "classification", *arguments]) == 0
        return capsys.readouterr().out

    id = output_of("add", "--text", "late  again", "--target", "delivery").split()[0]
    assert output_of("list") == f'{id} new "late again" -> "delivery"\n'
    output_of("edit", id, "--target", "praise")
    assert output_of("export") == '{"text": "late  again", "label": "praise"}\n'
    output_of("delete", id)
    assert output_of("list") == ""
    output_of("undo")
    output_of("undo")
    assert output_of("list").endswith('-> "delivery"\n')


def test_tabs_bases_and_the_needs_of_a_run_are_printed(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(home))
    assert training.main(["plugins"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]] == [
        "classification", "generation", "summarization",
    ]  # fmt: skip
    assert training.main(["bases", "--plugin", "generation", "--language", "zh"]) == 0
    head, *bases, last = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["base", "parameters"] and "--model" in last
    assert bases and all("/" in line.split()[0] and " GB " in line for line in bases)
    base = tiny.make("bert", home / "bert")
    rows = str(write_rows(spec_of("bert", base), home / "rows"))
    assert training.main(["estimate", "--plugin", "classification", "--base", str(base), "--data", rows]) == 0
    printed = capsys.readouterr().out
    assert "needs" in printed and "Gradient checkpointing: off." in printed
