"""The runner of the comparisons: what it finds, prints and keeps, and what it measures of a child."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from pathlib import Path

import pytest

from bench import __main__ as runner
from bench.measure import alternate, ratio, run_child
from bench.people import percentile, together
from bench.versions import make_site, publish
from bench.worker import Worker
from tests import tiny

ROWS = [{"what": "ours", "seconds": 1.23456, "rows": 10}, {"what": "theirs, slower", "seconds": 20.0, "rows": 9}]


def test_the_table_lines_its_columns_up() -> None:
    assert runner.table(ROWS).split("\n") == [
        "what            seconds  rows",
        "ours            1.235    10",
        "theirs, slower  20       9",
    ]


def test_rows_of_several_comparisons_share_a_table() -> None:
    assert runner.table([{"what": "a", "loss": 1}, {"what": "b", "accuracy": 2}]).split("\n") == [
        "what  loss  accuracy", "a     1", "b           2"
    ]  # fmt: skip


def test_what_is_kept_says_where_and_when(tmp_path: Path) -> None:
    kept = json.loads(runner.save(tmp_path / "results", "data", ["--gb", "1"], ROWS).read_text())
    assert (kept["benchmark"], kept["arguments"], kept["rows"]) == ("data", ["--gb", "1"], ROWS)
    assert kept["machine"]["cores"] >= 1 and kept["machine"]["memory_gb"] > 0 and kept["date"]
    assert {"torch", "datasets"} <= set(kept["machine"]["libraries"])


def test_every_name_is_a_module_with_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    for name, line in runner.names().items():
        assert callable(importlib.import_module(f"bench.{name}").run) and len(line) > 20
    assert not {"snippets", "measure", "__main__", "__init__"} & set(runner.names())
    with pytest.raises(SystemExit):
        runner.main(["no such benchmark"])
    assert "invalid choice" in capsys.readouterr().err


def test_a_child_is_measured() -> None:
    small = run_child([sys.executable, "-c", "print('é')"])
    large = run_child([sys.executable, "-c", "x = bytearray(200_000_000); x[::4096] = b'1' * len(x[::4096])"])
    assert small.output == "é\n" and small.seconds > 0 and small.processor_seconds > 0
    assert large.peak_bytes - small.peak_bytes > 150_000_000 or large.peak_bytes >= small.peak_bytes > 200_000_000
    with pytest.raises(RuntimeError, match=r"ended with 3:\noops"):
        run_child([sys.executable, "-c", "print('oops'); raise SystemExit(3)"])


def test_rounds_alternate_and_ratios_are_of_rounds() -> None:
    calls: list[str] = []
    contenders = {name: lambda name=name: float(calls.append(name) or len(calls)) for name in "ab"}
    figures = alternate(contenders, 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert figures == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert str(ratio(figures["a"], figures["b"])) == "0.83 (0.50 to 1.33)"


def test_the_way_of_data_is_measured_whole(tmp_path: Path) -> None:
    rows = importlib.import_module("bench.data").run(["--gb", "0.0005", "--folder", str(tmp_path)])
    assert [row["what"] for row in rows] == [
        "inspect", "graft first", "datasets first", "graft again", "datasets again"
    ]  # fmt: skip
    assert all(row["seconds"] > 0 and row["peak GB"] > 0 and row["processor s"] > 0 for row in rows)
    assert [bool(row["against datasets"]) for row in rows] == [False, True, False, True, False]
    assert list(tmp_path.iterdir()) == []


def test_the_way_to_an_answer_is_told_in_parts() -> None:
    live = importlib.import_module("bench.live")
    found = live._found([10.0, 14.0, 15.0, 20.0], 0.5)
    assert found == {"seconds": 10.0, **dict(zip(live.PARTS, (4.0, 1.0, 5.0), strict=True)), "accuracy": 0.5}
    rows = live._Rows(Path("."), [], [("a", "positive"), ("b", "negative")], Path("."))
    assert rows.right(["positive", "positive"]) == 0.5


def test_people_ask_at_the_same_time() -> None:
    all_there = threading.Barrier(3)
    seconds, answers = together([lambda i=i: (all_there.wait(10), i)[1] for i in range(3)])
    assert answers == [0, 1, 2] and seconds > 0
    with pytest.raises(ZeroDivisionError):
        together([lambda: 1 // 0, lambda: 1])
    assert [percentile([4, 1, 3, 2], share) for share in (0.5, 0.99, 0.0)] == [2, 4, 1]


def test_a_peer_that_ends_says_why() -> None:
    with Worker("bench.peers.stock_decode", {"no": "base"}) as peer, pytest.raises(RuntimeError, match="KeyError"):
        peer.ask(what="none")


@pytest.mark.parametrize(("family", "task"), [("bert", "text-classification"), ("llama", "causal-lm")])
def test_random_versions_answer_differently_and_are_served(family: str, task: str, tmp_path: Path) -> None:
    site = make_site(tmp_path, str(tiny.make(family, tmp_path / family)), task)
    versions = publish(site, ["a", "b"]) + publish(site, ["a"], first_seed=0)
    assert [version.ref for version in versions] == ["a@1", "b@1", "a@2"]
    pool, found = site.pool(), []
    for version in versions:
        with pool.open(site.spec, version.ref) as lm:
            text = "the parcel is late"
            found.append(lm.classify(text) if task != "causal-lm" else list(lm.generate(text, max_new_tokens=8))[-1])
    assert found[0] == found[2] != found[1]


def test_decoding_is_measured_with_the_same_answers(tmp_path: Path) -> None:
    base = str(tiny.make("llama", tmp_path / "llama"))
    small = ["--rounds", "1", "--people", "3", "--versions", "3", "--tokens", "4"]
    rows = importlib.import_module("bench.mixed").run(["--base", base, *small])
    assert [row["what"].partition(":")[0] for row in rows] == ["stock"] * 3 + ["graft"] * 3
    assert all(row["tokens a second"] > 0 for row in rows)
    assert [row["same answers"] for row in rows] == ["", "", "", *["3 of 3"] * 3]
    assert [bool(row["beside no adapter"]) for row in rows] == [False, True, True] * 2


def test_a_fast_wrong_answer_is_a_failure() -> None:
    mixed = importlib.import_module("bench.mixed")
    sides = mixed.Sides(None, None, None, [], ["?"] * 4, 4, len)
    sides.texts = {"graft none": ["a", "b", "c", "x"], "stock none": ["a", "b ", "c", "d"]}
    assert sides.same("none") == 3
    sides.texts["graft none"][0] = "x"
    with pytest.raises(RuntimeError, match="only 2 of 4 answers are the same"):
        sides.same("none")
