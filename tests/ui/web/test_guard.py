"""ui/web/guard.py: what leaves a handler is a sentence without tokens, and what it logs has none either."""

import logging
from types import SimpleNamespace

import gradio as gr
import pytest

from errors import GraftError
from settings import Settings
from ui.web.access import Access, Action
from ui.web.guard import Redacting, explained, guarded

CANARY = "hf_" + "canary" * 6
REQUEST = SimpleNamespace(headers={})


def test_r06_a_token_in_a_message_is_left_out_of_it() -> None:
    with pytest.raises(gr.Error) as caught, explained():
        raise GraftError("The Hub refuses.", f"Authorization: Bearer {CANARY}.", f"See https://x:{CANARY}@hub.")
    assert CANARY not in str(caught.value) and "hf_..." in str(caught.value) and "The Hub refuses." in str(caught.value)


def test_r06_a_token_in_a_traceback_is_left_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(gr.Error) as caught, explained():
        raise ValueError(f"GET /api?token={CANARY}")
    assert CANARY not in str(caught.value)
    (record,) = caplog.records
    written = Redacting("%(message)s").format(record)
    assert "Traceback" in written and "hf_..." in written and CANARY not in written
    assert CANARY in logging.Formatter("%(message)s").format(logging.makeLogRecord(vars(record) | {"exc_text": None}))


@pytest.mark.parametrize("ends", [SystemExit, SystemExit(1), KeyError("x")])
def test_r26_a_plugin_that_calls_exit_ends_its_request_and_not_the_server(ends: BaseException) -> None:
    def handler() -> None:
        raise ends

    with pytest.raises(gr.Error, match="Something went wrong in Graft itself"):
        guarded(Access(Settings()), Action.ASK, handler)(REQUEST)
