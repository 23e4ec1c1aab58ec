"""The comparisons in small: each runs, checks the answers of both sides, and gives its rows."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import __main__ as bench_command
from bench import measure
from bench.bench_tab import check_texts, open_tab, publish, republish, same_answer
from bench.finetuning.train_recipe import chat_case, live_figures
from bench.inference.classify_requests import check_labels
from bench.inference.gpu_llama import make_chats
from bench.servers import start_peer
from models.resolve import Model
from models.tokenizer import load_tokenizer
from store.adapters import AdapterStore
from tests.helpers import tiny

pytestmark = pytest.mark.slow
ROWS = [{"what": "ours", "seconds": 1.23456, "rows": 10}, {"what": "theirs, slower", "loss": 20.0, "rows": 9}]
Run = Callable[..., list[measure.Row]]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bases")
    return {family: str(tiny.make(family, folder / family)) for family in ("bert", "llama")}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return lambda name, *arguments: bench_command.load(name)(["--rounds", "1", *arguments], tmp_path)


def names_of(rows: list[measure.Row]) -> list[str]:
    return [row["what"] for row in rows]


def test_a_table_has_aligned_columns_and_a_column_for_each_key() -> None:
    assert measure.table(ROWS).split("\n") == [
        "what            seconds  rows  loss",
        "ours            1.235    10",
        "theirs, slower           9     20",
    ]


def test_results_are_saved_with_date_machine_and_libraries(tmp_path: Path) -> None:
    saved = json.loads(measure.save(tmp_path / "results", "data", ["--gb", "1"], ROWS).read_text())
    assert (saved["benchmark"], saved["arguments"], saved["rows"]) == ("data", ["--gb", "1"], ROWS)
    assert saved["machine"]["cores"] >= 1 and saved["machine"]["memory_gb"] > 0 and saved["date"]
    assert {"torch", "datasets"} <= set(saved["machine"]["libraries"])


def test_every_name_of_the_command_is_a_function_with_options(capsys: pytest.CaptureFixture[str]) -> None:
    for name in bench_command.COMPARISONS:
        with pytest.raises(SystemExit, match="0"):
            bench_command.load(name)(["--help"], Path("unused"))
        assert f"python -m bench {name}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench_command.main(["no such benchmark"])


def test_a_child_process_is_measured_with_time_memory_and_output() -> None:
    small = measure.run_child([sys.executable, "-c", "print('é')"])
    large = measure.run_child([sys.executable, "-c", "x = bytearray(200_000_000); x[::4096] = b'1' * len(x[::4096])"])
    assert small.output == "é\n" and small.seconds > 0 and small.processor_seconds > 0
    assert large.peak_bytes - small.peak_bytes > 150_000_000 or large.peak_bytes >= small.peak_bytes > 200_000_000
    with pytest.raises(RuntimeError, match=r"ended with 3:\noops"):
        measure.run_child([sys.executable, "-c", "print('oops'); raise SystemExit(3)"])


def test_rounds_alternate_and_ratios_are_of_rounds() -> None:
    calls: list[str] = []
    contenders = {name: lambda _, name=name: {"s": float(calls.append(name) or len(calls))} for name in "ab"}
    measured = measure.alternate(contenders, 3)
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert measure.summarize(measured, {"a": "b"}) == [
        {"what": "a", "s": 4.0, "s, x peer": "0.83 (0.50 to 1.33)"},
        {"what": "b", "s": 3.0, "s, x peer": ""},
    ]


def test_answers_are_checked_before_they_are_measured() -> None:
    asks = {"stock": lambda: (1.0, ["a", "b", "c", "d"]), "graft": lambda: (0.1, ["a", "b ", "x", "y"])}
    with pytest.raises(RuntimeError, match="graft: only 2 of 4 answers are the same"):
        measure.compare_answers(asks, {"graft": "stock"}, check_texts, lambda *_: pytest.fail("measured"), 1)
    assert check_texts("graft", ["a", "b", "c", "x"], ["a", "b ", "c", "d"]) == "3 of 4"
    assert check_labels("graft", [("good", 0.75001)], [("good", 0.75)]) == "1 of 1"
    for other in (("bad", 0.75), ("good", 0.76)):
        with pytest.raises(RuntimeError, match="graft says"):
            check_labels("graft", [other], [("good", 0.75)])
    assert same_answer({"x": 0.25}, {"x": 0.25004}) and not same_answer({"x": 0.25}, {"x": 0.26})


def test_calls_run_at_the_same_time_and_raise_their_errors() -> None:
    seconds, answers = measure.call_together([lambda i=i: i for i in range(3)])
    assert answers == [0, 1, 2] and seconds > 0
    with pytest.raises(ZeroDivisionError):
        measure.call_together([lambda: 1 // 0, lambda: 1])


def test_a_peer_that_ends_is_reported_with_its_log() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'classifier'"), start_peer("classify"):
        pass


@pytest.mark.parametrize(("family", "task"), [("bert", "text-classification"), ("llama", "causal-lm")])
def test_random_versions_answer_differently_and_are_served(
    family: str, task: str, bases: dict[str, str], tmp_path: Path
) -> None:
    tab = open_tab(tmp_path, task, bases[family])
    versions = [*publish(tab, ["a", "b"]), *publish(tab, ["a"])]
    versions.append(republish(AdapterStore(tab.settings.home), versions[1], "b"))
    named, answers = zip(*[tab.ask(version.ref, "the parcel is late", 8) for version in versions], strict=True)
    assert [version.ref for version in versions] == list(named) == ["a@1", "b@1", "a@2", "b@2"]
    assert answers[:2] == answers[2:] and answers[0] != answers[1]


def test_chat_compares_both_sides_through_http(run: Run, bases: dict[str, str]) -> None:
    rows = run("chat", "--base", bases["llama"], "--clients", "2", "--tokens", "6")
    assert names_of(rows) == [
        "1 at once: Gradio and generate",
        "1 at once: graft",
        "2 at once: Gradio and generate",
        "2 at once: graft",
        "1 at once: llama.cpp, without HTTP",
    ]
    assert [row.get("same answers", "") for row in rows] == ["", "1 of 1", "", "2 of 2", ""]
    assert rows[4]["tokens a second"] == "not measured"


def test_mixed_compares_each_use_of_adapters(run: Run, bases: dict[str, str]) -> None:
    rows = run("mixed", "--base", bases["llama"], "--clients", "3", "--versions", "3", "--tokens", "4")
    assert [row["what"].partition(":")[0] for row in rows] == ["stock", "graft"] * 3
    assert [row["same answers"] for row in rows] == ["", "3 of 3"] * 3
    assert all(row["tokens a second"] > 0 and row["x without adapter"] for row in rows)


@pytest.mark.parametrize(("kind", "family"), [("classification", "bert"), ("generation", "llama")])
def test_swap_compares_a_new_version_and_the_waits_of_others(
    kind: str, family: str, run: Run, bases: dict[str, str]
) -> None:
    rows = run("swap", kind, "--base", bases[family], "--asked", "20")
    assert names_of(rows) == [
        f"{kind}: load_adapter, set_adapter",
        f"{kind}: a new version",
        f"{kind}: others, quiet",
        f"{kind}: others, 8 swaps",
    ]
    assert rows[1]["to its answer, ms"] > 0 and rows[1]["to its answer, ms, x peer"] and rows[3]["p99, ms, x peer"]


def test_classify_compares_inside_and_through_http(run: Run, bases: dict[str, str]) -> None:
    rows = run("classify", "--base", bases["bert"], "--clients", "3", "--asked", "2", "--batch", "4")
    assert names_of(rows) == [
        "inside: pipeline, one by one",
        "inside: pipeline, lists of 4",
        "inside: graft, one client",
        "inside: graft, 3 clients",
        "through HTTP: Gradio and pipeline, 3 clients",
        "through HTTP: graft, one client",
        "through HTTP: graft, 3 clients",
    ]
    assert [row["same answers"] for row in rows] == ["", *["6 of 6"] * 3, "", *["6 of 6"] * 2]


def test_start_measures_the_page_and_the_first_answer(run: Run, bases: dict[str, str]) -> None:
    rows = run("start", "--classifier", bases["bert"], "--writer", bases["llama"], "--warm", "0")
    seconds = {row["what"]: row["seconds"] for row in rows}
    assert 0 < seconds["graft: page"] < seconds["graft: first answer"] and seconds["a bare Gradio page"] > 0


def test_memory_is_measured_when_every_version_has_answered(run: Run, bases: dict[str, str]) -> None:
    rows = run("memory", "--classifier", bases["bert"], "--writer", bases["llama"])
    assert names_of(rows) == ["three pipelines", "three tabs, 8 versions"]
    assert all(row["MB"] > 100 for row in rows) and rows[1]["MB, x peer"]


def test_data_is_measured_first_and_again(run: Run) -> None:
    rows = run("data", "--gb", "0.0005")
    assert names_of(rows) == ["inspect", "graft first", "datasets first", "graft again", "datasets again"]
    assert all(row["seconds"] > 0 and row["peak GB"] > 0 and row["processor s"] > 0 for row in rows)
    assert [bool(row["seconds, x peer"]) for row in rows] == [False, True, False, True, False]


def test_live_measures_the_parts_of_the_way_to_an_answer() -> None:
    figures = live_figures([10.0, 14.0, 15.0, 20.0], ["positive", "positive"], [("a", "positive"), ("b", "negative")])
    parts = {"until it trains": 4.0, "training": 1.0, "until it answers": 5.0}
    assert figures == {"seconds": 10.0, **parts, "accuracy": 0.5}


def test_gpu_runs_in_small_without_one(run: Run) -> None:
    rows = run("gpu", "--size", "tiny")
    assert names_of(rows) == [
        "qlora: stock",
        "qlora: graft",
        *[f"decode, quantize {how}: {count} versions" for how in ("none", "4bit") for count in (0, 3)],
    ]
    losses = [float(row["held-out loss"].split()[0]) for row in rows[:2]]
    assert abs(losses[0] - losses[1]) < 0.05


def test_chats_are_nearly_as_long_as_allowed(smollm: Model, tmp_path: Path) -> None:
    chats = make_chats(load_tokenizer(smollm), 4, 256)
    case = chat_case("long", tmp_path, str(smollm.path), chats, chats[:1], max_length=256)
    assert all(200 < len(row["input_ids"]) <= 256 for row in case.train)
    assert all(len(row["labels"]) - row["labels"].count(-100) > 150 for row in case.train)
