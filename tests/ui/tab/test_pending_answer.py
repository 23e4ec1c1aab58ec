"""ui/tab/pending_answer.py: a request that waits says how many are before it, and one that nobody waits for ends."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from errors import BusyError
from tests.helpers.ui_site import make
from ui.context import Context
from ui.tab import pending_answer, task_tab
from ui.tab.pending_answer import PendingAnswer, follow

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


class Line:
    """An lm whose request waits until its turn comes."""

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
def lm() -> Line:
    return Line()


@pytest.fixture
def context(tmp_path: Path, lm: Line, monkeypatch: pytest.MonkeyPatch) -> Context:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "stand.py").write_text(STAND, encoding="utf-8")
    context, pool, _ = make(tmp_path)

    @contextmanager
    def opened(spec, adapter):
        yield lm

    monkeypatch.setattr(pool, "open", opened)
    return context


def handler_of(context: Context):
    plugin = context.plugin("stand")
    return task_tab.answer(context, plugin, task_tab.make_parts(plugin), keeps=False)


def test_a_request_says_how_many_are_before_it(context: Context, lm: Line) -> None:
    rows = handler_of(context)("ab", "base")
    said, badge = next(rows)
    assert badge == {"before": 2} and said["__type__"] == "update", "what is on the page stays"
    lm.before = 1
    assert any(badge == {"before": 1} for _, badge in (next(rows) for _ in range(20)))
    lm.turn.set()
    *_, (said, badge) = rows
    assert said == "abab" and badge["version"] == "base" and "before" not in badge
    assert lm.before == 1, "what was answered is not told to wait"


def test_an_error_is_raised_where_it_was_asked(context: Context) -> None:
    with pytest.raises(BusyError, match="Too many are waiting"):
        list(handler_of(context)("too many", "base"))


def test_r26_a_plugin_that_calls_exit_ends_its_request_and_says_so(context: Context, lm: Line) -> None:
    with pytest.raises(SystemExit):
        list(handler_of(context)("exit", "base"))
    assert lm.ended.wait(20)


def test_a_request_that_nobody_waits_for_ends(context: Context, lm: Line) -> None:
    rows = handler_of(context)("ab", "base")
    next(rows)
    rows.close()
    lm.turn.set()
    assert lm.ended.wait(20)


def test_several_wait_and_end_together(context: Context, lm: Line) -> None:
    askings = [PendingAnswer("base", {"text": text}, [None]) for text in ("a", "b", "too many")]
    going = follow(context, "stand", askings)
    next(going)
    assert [asking.before for asking in askings[:2]] == [2, 2] and not any(asking.done for asking in askings[:2])
    lm.turn.set()
    list(going)
    assert [asking.outputs for asking in askings] == [["aa"], ["bb"], [None]]
    assert [asking.whole for asking in askings] == [True, True, False] and isinstance(askings[2].error, BusyError)


def test_a_page_is_told_less_often_than_words_are_written(
    context: Context, lm: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UPDATE_S", "LOOK_S"):
        monkeypatch.setattr(pending_answer, name, 20)
    lm.turn.set()
    first, last = [said for said, _ in handler_of(context)("slowly", "base")]
    assert first == "slowly" and last == "slowly" * 8, "the first word at once, and the end"
    assert not pending_answer._followed


def test_a_request_of_a_model_that_has_no_line_waits_for_nobody() -> None:
    asking = PendingAnswer("base", {}, [None])
    asking.bind(SimpleNamespace(version="own"))
    assert asking.before == 0 and asking.told is None
