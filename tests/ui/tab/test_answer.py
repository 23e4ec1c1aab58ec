"""ui/tab/answer.py: a waiting request shows its place in the queue, and one whose reader left ends; its limits."""

from __future__ import annotations

import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from errors import BusyError, InputError
from settings import Settings
from tests.helpers.ui_site import make, serve
from ui.context import Context
from ui.tab import answer, task_tab
from ui.tab.answer import PendingAnswer, check, follow

STAND = """
import gradio as gr
from plugins import TaskPlugin

class Stand(TaskPlugin):
    name, title = "stand", "Stand"
    model, task = "org/base", "causal-lm"

    def inputs(self): return [gr.Textbox(label="Text")]
    def outputs(self): return [gr.Textbox(label="Said")]
    def predict(self, lm, text):
        try:
            yield from lm.generate(text)
        finally:
            lm.ended.set()
"""
LONG = """
import gradio as gr
from plugins import TaskPlugin

class Long(TaskPlugin):
    name, title = "long", "Long"
    model, task = "org/base", "causal-lm"

    def inputs(self): return [gr.Textbox(label="Text"), gr.Slider(1, 512, 160, label="Tokens")]
    def outputs(self): return [gr.Textbox(label="Said")]
    def predict(self, lm, text, max_new_tokens=160): return f"{len(text)} {max_new_tokens}"
"""
SMALL = replace(Settings(), text_length=20, new_tokens=8)


class WaitingLM:
    """An `lm` whose request waits until `turn` is set."""

    def __init__(self) -> None:
        self.version, self.base, self.notes = "base", "org/base", list[str]()
        self.before, self.turn, self.ended = 2, threading.Event(), threading.Event()

    def generate(self, text):
        if text == "too many":
            raise BusyError("Too many are waiting.")
        if text == "exit":
            raise SystemExit(1)
        assert self.turn.wait(20)
        yield text
        if text == "slowly":
            for count in range(2, 9):
                time.sleep(0.02)
                yield text * count
        else:
            yield text * 2


@pytest.fixture
def lm() -> WaitingLM:
    return WaitingLM()


@pytest.fixture
def context(tmp_path: Path, lm: WaitingLM, monkeypatch: pytest.MonkeyPatch) -> Context:
    context, pool, _ = make(tmp_path, plugins={"stand": STAND})
    monkeypatch.setattr(pool, "open", lambda *_: nullcontext(lm))
    return context


def handler_of(context: Context):
    plugin = context.plugin("stand")
    parts = task_tab.make_parts(plugin)
    return answer.handler_of(context, plugin, parts.parameters, len(parts.outputs), keeps=False)


def test_a_waiting_request_shows_the_number_before_it(context: Context, lm: WaitingLM) -> None:
    rows = handler_of(context)("ab", "base")
    said, badge = next(rows)
    assert badge == {"before": 2} and said["__type__"] == "update", "the page keeps its answer"
    lm.before = 1
    assert any(badge == {"before": 1} for _, badge in (next(rows) for _ in range(20)))
    lm.turn.set()
    *_, (said, badge) = rows
    assert said == "abab" and badge["version"] == "base" and "before" not in badge


def test_r26_an_error_is_raised_and_a_plugin_that_calls_exit_ends_its_request(context: Context, lm: WaitingLM) -> None:
    with pytest.raises(BusyError, match="Too many are waiting"):
        list(handler_of(context)("too many", "base"))
    lm.ended.clear()
    with pytest.raises(SystemExit):
        list(handler_of(context)("exit", "base"))
    assert lm.ended.wait(20)


def test_a_request_whose_reader_left_ends(context: Context, lm: WaitingLM) -> None:
    rows = handler_of(context)("ab", "base")
    next(rows)
    rows.close()
    lm.turn.set()
    assert lm.ended.wait(20)


def test_several_requests_wait_and_end_together(context: Context, lm: WaitingLM) -> None:
    requests = [PendingAnswer("base", {"text": text}, [None]) for text in ("a", "b", "too many")]
    going = follow(context, "stand", requests)
    next(going)
    assert [request.before for request in requests[:2]] == [2, 2] and not any(request.done for request in requests[:2])
    lm.turn.set()
    list(going)
    assert [request.outputs for request in requests] == [["aa"], ["bb"], [None]]
    assert [request.whole for request in requests] == [True, True, False] and isinstance(requests[2].error, BusyError)


def test_a_page_is_updated_less_often_than_words_are_written(
    context: Context, lm: WaitingLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UPDATE_S", "LOOK_S"):
        monkeypatch.setattr(answer, name, 20)
    lm.turn.set()
    first, last = [said for said, _ in handler_of(context)("slowly", "base")]
    assert first == "slowly" and last == "slowly" * 8, "the first word at once, and the end"
    assert not answer._pages


def test_a_request_to_a_plugins_own_module_does_not_wait() -> None:
    request = PendingAnswer("base", {}, [None])
    request.lm = SimpleNamespace(version="own")
    assert request.before == 0 and request.status is None


def test_limits_count_all_texts_of_a_request_and_its_tokens() -> None:
    turns = [{"role": "user", "content": "a" * 5}, {"role": "user", "content": [{"text": "b" * 5}]}]
    check(SMALL, {"text": "x" * 20, "times": 3, "nothing": None})
    for given in ({"text": "x" * 21}, {"text": "x" * 15, "history": turns}, {"deep": [["y" * 21]]}):
        with pytest.raises(InputError, match=r"the limit is 20 \(GRAFT_TEXT_LENGTH\)"):
            check(SMALL, given)
    check(SMALL, {"text": "x", "max_new_tokens": 8})
    with pytest.raises(InputError, match=r"8 tokens \(GRAFT_NEW_TOKENS\)"):
        check(SMALL, {"text": "x", "max_new_tokens": 9})
    deep: list = ["x" * 21]
    for _ in range(100_000):  # beyond any recursion
        deep = [deep]
    with pytest.raises(InputError):
        check(SMALL, {"deep": deep})


@pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own
def test_limits_above_their_defaults_hold_for_api_clients(tmp_path: Path) -> None:
    with serve(tmp_path, plugins={"long": LONG}, text_length=300_000, new_tokens=5000) as site:
        client = Client(site.url, verbose=False)
        assert client.predict("a" * 250_000, 5000, api_name="/long")[0] == "250000 5000"
        with pytest.raises(AppError, match=r"It says 300,001 characters; the limit is 300,000 \(GRAFT_TEXT_LENGTH\)"):
            client.predict("a" * 300_001, api_name="/long")
        with pytest.raises(AppError, match="5001 is greater than maximum value 5000"):
            client.predict("notes", 5001, api_name="/long")
