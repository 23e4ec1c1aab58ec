"""store/corrections.py: nothing acknowledged is lost, whoever writes at the same time and however a process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from errors import DataError, GraftError
from settings import REPOSITORY
from store import files
from store.corrections import Corrections, as_jsonl
from tests.helpers.run_helpers import blocked, file_limit
from tests.helpers.waiting import until

WRITER = """
import sys
from pathlib import Path
from store.corrections import Corrections
kept = Corrections(Path(sys.argv[1]))
for i in range(int(sys.argv[3])):
    print(kept.add("echo", {"text": f"{sys.argv[2]} {i}", "target": "x"}).id, flush=True)
"""


def row(text: str, target: str = "right") -> dict[str, str]:
    return {"text": text, "target": target}


def writer(home: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(home), name, str(count)]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


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
    assert (found.asked, found.target) == ("hi", "hello")
    edited = Corrections(home).edit("chat", found.id, "good day")
    assert edited.row["messages"] == [turns[0], {"role": "assistant", "content": "good day"}]


def test_a_taught_correction_is_marked_unless_it_changed_meanwhile(home: Path) -> None:
    kept = Corrections(home)
    first, second = kept.add("echo", row("one")), kept.add("echo", row("two"))
    kept.edit("echo", second.id, "changed while the run went on")
    kept.taught("echo", {first.id: first.row, second.id: second.row, "gone": {}}, "mine@2")
    assert {one.id: one.taught for one in kept.list("echo")} == {first.id: "mine@2", second.id: ""}
    assert kept.edit("echo", first.id, "another").taught == ""


@pytest.mark.parametrize(
    "bad", [row(""), row("x", " "), row("x", "y" * 100_001), {"messages": [{"role": "user", "content": "hi"}]}]
)
def test_a_row_that_teaches_nothing_is_refused(home: Path, bad: dict) -> None:
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


def test_text_that_is_no_unicode_is_kept_as_far_as_it_goes(home: Path) -> None:
    assert Corrections(home).add("echo", row("half \ud83d", "good"), "\udcff").asked == "half ?"


def test_two_processes_write_at_once_and_another_one_sees_it(home: Path) -> None:
    watching = Corrections(home)
    assert watching.list("echo") == [] and watching.mark("echo") is None
    processes = [writer(home, name, 20) for name in ("a", "b")]
    told = [id for process in processes for id in process.communicate()[0].split()]
    assert len(told) == 40 and {one.id for one in watching.list("echo")} == set(told)


def test_r31_a_correction_waits_for_the_one_before(home: Path) -> None:
    kept = Corrections(home)
    kept.add("echo", row("one"))
    lock = home / "corrections" / ".lock"
    with files.lock(lock):
        process = writer(home, "a", 1)
        until(lambda: f" {process.pid} " in blocked(lock.stat().st_ino), 60)
        assert len(kept.list("echo")) == 1
    assert process.communicate()[0] and len(kept.list("echo")) == 2


def test_an_acknowledged_correction_survives_the_death_of_its_process(home: Path) -> None:
    process = writer(home, "a", 10_000)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(5)]
    os.kill(process.pid, signal.SIGKILL)
    told += process.communicate()[0].split("\n")[:-1]
    assert {one.id for one in Corrections(home).list("echo")} >= set(told)


def test_half_a_line_is_passed_over_and_spoils_no_other(home: Path) -> None:
    kept = Corrections(home)
    kept.add("echo", row("one"))
    path = home / "corrections" / "echo.jsonl"
    with path.open("ab") as file:
        file.write(b'{"kind": "delete", "id": "')
    kept.add("echo", row("two"))
    assert {one.asked for one in kept.list("echo")} == {"one", "two"}
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
    assert [one.asked for one in kept.list("echo")] == ["one"]


def test_the_export_is_rows_under_the_tabs_own_names(home: Path) -> None:
    kept = Corrections(home)
    kept.add("echo", row("naïve", "a\nb"))
    text = as_jsonl(kept.list("echo"), {"text": "body", "target": "label"})
    assert json.loads(text) == {"body": "naïve", "label": "a\nb"} and "naïve" in text


def test_an_acknowledged_correction_was_synced_to_the_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    through = os.fsync

    def fsync(handle: int) -> None:
        through(handle)
        if os.path.isfile(f"/proc/self/fd/{handle}"):
            synced.append(Path(f"/proc/self/fd/{handle}").read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    kept = Corrections(home)
    one = kept.add("echo", row("one"))
    assert one.id.encode() in synced[-1]
    kept.delete("echo", one.id)
    assert synced[-1].count(b"\n") == 2 and b'"delete"' in synced[-1]
