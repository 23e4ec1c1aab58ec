"""The runner of the comparisons: what it finds, prints and keeps, and what it measures of a child."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
from pathlib import Path

import pytest

from bench import __main__ as runner
from bench.history import History
from bench.measure import alternate, ratio, run_child
from bench.people import percentile, together
from bench.versions import make_site, publish
from bench.worker import Worker
from models.resolve import Model
from models.tokenizer import load_tokenizer
from tests.helpers import tiny

ROWS = [{"what": "ours", "seconds": 1.23456, "rows": 10}, {"what": "theirs, slower", "seconds": 20.0, "rows": 9}]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bases")
    return {family: str(tiny.make(family, folder / family)) for family in ("bert", "llama")}


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
    with Worker("bench.peers", {}) as peer, pytest.raises(RuntimeError, match="cannot be directly executed"):
        peer.ask(what="none")


@pytest.mark.parametrize(("family", "task"), [("bert", "text-classification"), ("llama", "causal-lm")])
def test_random_versions_answer_differently_and_are_served(family: str, task: str, tmp_path: Path) -> None:
    site = make_site(tmp_path, str(tiny.make(family, tmp_path / family)), task)
    versions = publish(site, ["a", "b"]) + publish(site, ["a"])
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


GOLDEN = {("base", "t"): "zero", ("a@1", "t"): "one", ("b@1", "t"): {"x": 0.25, "y": 0.75}}


def recorded(*moves: str) -> History:
    history = History(GOLDEN)
    history.made_from |= {"a@1": "a@1", "copy@7": "a@1", "b@1": "b@1"}
    for ref in moves:
        with history.moving() as move:
            move.ref = ref
    return history


@pytest.mark.parametrize(
    ("moves", "asked", "version", "said", "fault"),
    [
        ([], "live", "base", "zero", ""),
        (["a@1"], "live", "a@1", "one", ""),
        (["a@1", "b@1"], "live", "b@1", {"x": 0.25004, "y": 0.74996}, ""),
        (["a@1", "b@1"], "a@1", "a@1", "one", ""),
        (["copy@7"], "live", "copy@7", "one", ""),
        (["a@1", "b@1"], "live", "a@1", "one", "a@1 answered as the live version and was not live."),
        ([], "b@1", "a@1", "one", "b@1 was asked and a@1 answered."),
        (["a@1"], "live", "a@1", "zero", "a@1 answered 'zero' to 't', as base does."),
        (["a@1"], "live", "a@1", "two", "a@1 answered 'two' to 't', as none does."),
        (["b@1"], "live", "b@1", {"x": 0.26, "y": 0.74}, "b@1 answered {'x': 0.26, 'y': 0.74} to 't', as none does."),
    ],
)
def test_an_answer_is_held_to_the_version_it_names(
    moves: list[str], asked: str, version: str, said: object, fault: str
) -> None:
    history = recorded(*moves)
    history.answered(asked, "t", version, said, time.monotonic())
    assert history.faults() == ([fault] if fault else [])


def test_a_call_during_a_move_may_name_either_version() -> None:
    history = recorded("a@1")
    began = time.monotonic()
    with history.moving() as move:
        move.ref = "b@1"
        history.answered("live", "t", "a@1", "one", began)
    history.answered("live", "t", "a@1", "one", began)
    history.answered("live", "t", "b@1", GOLDEN["b@1", "t"], began)
    assert history.faults() == []
    history.failed("live", ValueError("no"))
    assert history.faults() == ["live: ValueError('no')"]


def test_swaps_are_measured_beside_peft(bases: dict[str, str]) -> None:
    small = ["classification", "--base", bases["bert"], "--rounds", "1", "--asked", "20"]
    rows = importlib.import_module("bench.swap").run(small)
    assert [row["what"] for row in rows] == [
        "classification: load_adapter, set_adapter", "classification: a new version", "classification: others, quiet",
        "classification: others, 8 swaps",
    ]  # fmt: skip
    assert rows[1]["to its answer ms"] > 0 and rows[1]["beside stock"] and rows[3]["p99 beside quiet"]


@pytest.mark.parametrize("kind", ["classification", "generation"])
def test_hundreds_of_swaps_are_told_in_a_row(kind: str, tmp_path: Path) -> None:
    swap = importlib.import_module("bench.swap")
    base = str(tiny.make("bert" if kind == "classification" else "llama", tmp_path / "base"))
    answers = 120 if kind == "classification" else 1200
    [row] = swap.run([kind, "--base", base, "--history", "--answers", str(answers), "--publishes", "16"])
    assert (row["errors"], row["wrong"], row["the first"]) == (0, 0, "") and row["answers"] >= 120
    assert (row["publishes"], row["roll backs"]) == (16, 4) and row["versions that answered"] > 12
    [row] = swap.run([kind, "--base", base, "--memory", "--swaps", "10"])
    assert row["swaps"] == 10 and row["last MB"] > 0


def test_the_slope_is_that_of_a_line() -> None:
    soak = importlib.import_module("bench.soak")
    assert soak.slope([5.0, 7.0, 9.0, 11.0]) == pytest.approx(2.0) and soak.slope([3.0, 3.0, 3.0]) == 0.0
    before = soak.resident_bytes()
    block = bytearray(50_000_000)
    block[::4096] = b"1" * len(block[::4096])
    assert soak.resident_bytes() - before > 40_000_000


def test_classification_is_measured_with_the_same_answers(bases: dict[str, str]) -> None:
    small = ["--base", bases["bert"], "--rounds", "1", "--people", "3", "--asked", "2", "--batch", "4"]
    rows = importlib.import_module("bench.classify").run(small)
    assert [row["what"] for row in rows] == [
        "inside: pipeline, one by one", "inside: pipeline, a list in batches of 4", "inside: graft, one person",
        "inside: graft, 3 people", "through HTTP: Gradio and pipeline, 3 people", "through HTTP: graft, one person",
        "through HTTP: graft, 3 people",
    ]  # fmt: skip
    assert all(row["answers a second"] > 0 for row in rows)
    assert [bool(row["beside stock"]) for row in rows] == [False, True, True, True, False, True, True]


def test_another_label_or_probability_is_a_failure() -> None:
    check = importlib.import_module("bench.classify").check
    check("ours", [("good", 0.75)], [("good", 0.75001)])
    for other in (("bad", 0.75), ("good", 0.76)):
        with pytest.raises(RuntimeError, match="ours says"):
            check("ours", [("good", 0.75)], [other])


def test_a_call_beside_a_run_is_measured(bases: dict[str, str]) -> None:
    small = ["--base", bases["bert"], "--rounds", "1", "--calls", "3", "--beside-training"]
    rows = importlib.import_module("bench.classify").run(small)
    assert [row["what"] for row in rows] == ["a call alone", "a call beside a run"]
    assert rows[1]["p95 ms"] > 0 and rows[1]["p95 beside alone"]


def test_conversations_are_measured_with_the_same_answers(bases: dict[str, str]) -> None:
    small = ["--base", bases["llama"], "--rounds", "1", "--people", "2", "--tokens", "6"]
    rows = importlib.import_module("bench.chat").run(small)
    assert [row["what"] for row in rows] == [
        "1 person: Gradio and generate", "1 person: graft", "2 people: Gradio and generate", "2 people: graft",
        "1 person: llama.cpp, inside",
    ]  # fmt: skip
    assert [row.get("same answers", "") for row in rows] == ["", "1 of 1", "", "2 of 2", ""]
    assert rows[4]["tokens a second"] == "not measured"


def test_the_start_is_measured_until_the_page_and_the_answer(bases: dict[str, str]) -> None:
    small = ["--classifier", bases["bert"], "--writer", bases["llama"], "--rounds", "1", "--warm", "0"]
    rows = importlib.import_module("bench.start").run(small)
    seconds = {row["what"]: row["seconds"] for row in rows}
    assert 0 < seconds["graft: page"] < seconds["graft: first answer"] and seconds["a bare Gradio page"] > 0


def test_memory_is_measured_with_every_version_answering(bases: dict[str, str]) -> None:
    small = ["--classifier", bases["bert"], "--writer", bases["llama"], "--rounds", "1"]
    rows = importlib.import_module("bench.memory").run(small)
    assert [row["what"] for row in rows] == ["three pipelines", "three tabs, 8 versions"]
    assert all(row["MB"] > 100 for row in rows) and rows[1]["beside stock"]


def test_what_is_for_a_gpu_runs_in_small(tmp_path: Path) -> None:
    rows = importlib.import_module("bench.gpu").run(["train", "decode", "--tiny", "--rounds", "1"])
    assert [row["what"] for row in rows] == [
        "QLoRA, 8 rows of 64 tokens: stock", "QLoRA, 8 rows of 64 tokens: graft",
        "decode, not quantized: 4 requests, no version", "decode, not quantized: 4 requests, 3 versions",
        "decode, NF4: 4 requests, no version", "decode, NF4: 4 requests, 3 versions",
    ]  # fmt: skip
    assert abs(rows[0]["held-out loss"] - rows[1]["held-out loss"]) < 0.05


def test_rows_for_training_are_nearly_as_long_as_allowed(smollm: Model) -> None:
    qlora, tokenizer = importlib.import_module("bench.qlora"), load_tokenizer(smollm)
    rows = [qlora.labelled(tokenizer, row) for row in qlora.make_rows(tokenizer, 4, 256)]
    assert all(200 < len(row["input_ids"]) <= 256 for row in rows)
    assert all(len(row["labels"]) - row["labels"].count(-100) > 150 for row in rows)
