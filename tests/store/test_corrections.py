"""store/corrections.py: changes are undone one by one, and no writer loses those of another."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from errors import DataError, GraftError
from settings import REPOSITORY
from store.corrections import Corrections, as_jsonl
from tests.helpers.run_helpers import file_limit

WRITER = """
import sys
from pathlib import Path
from store.corrections import Corrections
kept = Corrections(Path(sys.argv[1]))
for i in range(20):
    print(kept.add("echo", {"text": f"{sys.argv[2]} {i}", "target": "x"}).id, flush=True)
"""


def row(text: str, target: str = "right") -> dict[str, str]:
    return {"text": text, "target": target}


def test_add_edit_delete_and_undo_each_of_them(home: Path) -> None:
    kept = Corrections(home)
    first = kept.add("echo", row("one"), answered="wrong", version="mine@1")
    second = kept.add("echo", row("two"))
    assert [one.id for one in kept.list("echo")] == [second.id, first.id] and kept.list("other") == []
    assert kept.edit("echo", first.id, "better").row == row("one", "better")
    kept.delete("echo", second.id)
    assert [one.target for one in kept.list("echo")] == ["better"]
    kept.undo("echo")
    kept.undo("echo")
    assert [one.target for one in kept.list("echo")] == ["right", "right"]
    kept.undo("echo")
    kept.undo("echo")
    assert kept.list("echo") == [] and not kept.undoable("echo")
    with pytest.raises(DataError, match="nothing to undo"):
        kept.undo("echo")


def test_the_same_question_is_kept_once(home: Path) -> None:
    kept = Corrections(home)
    first = kept.add("echo", row("one", "a"))
    assert kept.add("echo", row(" one ", "b")).id == first.id
    assert [one.target for one in kept.list("echo")] == ["b"]
    kept.undo("echo")
    assert [one.target for one in kept.list("echo")] == ["a"]


def test_conversations_are_corrected_at_their_end(home: Path) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    found = Corrections(home).add("chat", {"messages": turns}, "yo")
    assert (found.question, found.target) == ("hi", "hello")
    edited = Corrections(home).edit("chat", found.id, "good day")
    assert edited.row["messages"] == [turns[0], {"role": "assistant", "content": "good day"}]


def test_a_taught_correction_is_marked_unless_it_changed_meanwhile(home: Path) -> None:
    kept = Corrections(home)
    first, second = kept.add("echo", row("one")), kept.add("echo", row("two"))
    kept.edit("echo", second.id, "changed while the run went on")
    kept.mark_taught("echo", {first.id: first.row, second.id: second.row, "gone": {}}, "mine@2")
    assert {one.id: one.taught for one in kept.list("echo")} == {first.id: "mine@2", second.id: ""}
    assert kept.edit("echo", first.id, "another").taught == ""


@pytest.mark.parametrize(
    "bad", [row(""), row("x", " "), row("x", "y" * 100_001), {"messages": [{"role": "user", "content": "hi"}]}]
)
def test_a_row_without_a_right_answer_is_refused(home: Path, bad: dict) -> None:
    with pytest.raises(DataError):
        Corrections(home).add("echo", bad)
    assert Corrections(home).list("echo") == []


def test_r16_ids_are_ours_and_tabs_are_no_paths(home: Path) -> None:
    kept = Corrections(home)
    for change in (kept.delete, kept.get, lambda tab, id: kept.edit(tab, id, "x")):
        with pytest.raises(DataError, match="There is no correction"):
            change("echo", "../../etc")
    with pytest.raises(DataError, match="is no tab"):
        kept.add("../echo", row("one"))


def test_lone_surrogates_become_question_marks(home: Path) -> None:
    assert Corrections(home).add("echo", row("half \ud83d", "good"), "\udcff").question == "half ?"


def test_r31_lines_of_two_processes_that_write_at_once_are_seen_by_another(home: Path) -> None:
    watching = Corrections(home)
    assert watching.list("echo") == [] and watching.mark("echo") is None
    commands = ([sys.executable, "-c", WRITER, str(home), name] for name in "ab")
    processes = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for command in commands]
    acknowledged = [id for process in processes for id in process.communicate()[0].split()]
    assert len(acknowledged) == 40 and {one.id for one in watching.list("echo")} == set(acknowledged)


def test_half_a_line_is_passed_over_and_spoils_no_other(home: Path) -> None:
    kept = Corrections(home)
    kept.add("echo", row("one"))
    path = home / "corrections" / "echo.jsonl"
    with path.open("ab") as file:
        file.write(b'{"kind": "delete", "id": "')
    kept.add("echo", row("two"))
    assert {one.question for one in kept.list("echo")} == {"one", "two"}
    with path.open("ab") as file:
        file.write(b'\xff\n[]\n{"kind": "else"}\n')
    assert len(kept.list("echo")) == 2


def test_r20_a_full_disk_takes_nothing_away_and_says_so(home: Path) -> None:
    kept = Corrections(home)
    kept.add("echo", row("one"))
    size = (home / "corrections" / "echo.jsonl").stat().st_size
    with file_limit(size + 20), pytest.raises(GraftError, match="could not be kept"):
        kept.add("echo", row("two"))
    assert (home / "corrections" / "echo.jsonl").stat().st_size == size
    assert [one.question for one in kept.list("echo")] == ["one"]


def test_the_export_is_rows_under_the_tabs_own_names(home: Path) -> None:
    kept = Corrections(home)
    kept.add("echo", row("naïve", "a\nb"))
    text = as_jsonl(kept.list("echo"), {"text": "body", "target": "label"})
    assert json.loads(text) == {"body": "naïve", "label": "a\nb"} and "naïve" in text
