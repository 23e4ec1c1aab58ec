"""ui/tab/answer.py: how much one request may say and ask for."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from errors import InputError
from plugins._discovery import discover
from serving.pool import Pool
from settings import Settings
from store.adapters import AdapterStore
from tests.conftest import Trained
from training.runs.runs import Runs
from ui import shell
from ui.context import Context
from ui.tab.answer import check
from ui.web import server

SMALL = replace(Settings(), text_length=20, new_tokens=8)


def test_all_that_a_request_says_counts_at_any_depth() -> None:
    turns = [{"role": "user", "content": "a" * 5}, {"role": "user", "content": [{"text": "b" * 5}]}]
    check(SMALL, {"text": "x" * 20, "times": 3, "nothing": None})
    for given in ({"text": "x" * 21}, {"text": "x" * 15, "history": turns}, {"deep": [["y" * 21]]}):
        with pytest.raises(InputError, match=r"the limit is 20 \(GRAFT_TEXT_LENGTH\)"):
            check(SMALL, given)


def test_an_answer_has_a_length() -> None:
    check(SMALL, {"text": "x", "max_new_tokens": 8})
    with pytest.raises(InputError, match=r"8 tokens \(GRAFT_NEW_TOKENS\)"):
        check(SMALL, {"text": "x", "max_new_tokens": 9})


def test_a_nesting_without_end_is_walked_without_recursion() -> None:
    deep: list = ["x" * 21]
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputError):
        check(SMALL, {"deep": deep})


@pytest.fixture
def client(bert: Trained, llama: Trained, tmp_path: Path) -> Iterator[Client]:
    """The whole page with tiny bases, its two limits set above their defaults."""
    settings = Settings.from_env(
        {
            "GRAFT_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "GRAFT_QUANTIZE": "none",
            "GRAFT_MODEL_CLASSIFICATION": bert.spec.model, "GRAFT_MODEL_GENERATION": llama.spec.model,
            "GRAFT_MODEL_SUMMARIZATION": llama.spec.model, "GRAFT_TEXT_LENGTH": "300000", "GRAFT_NEW_TOKENS": "5000",
        }
    )  # fmt: skip
    adapters = AdapterStore(settings.home, settings.home / "none")
    pool = Pool(settings, llama.models, adapters)
    context = Context(settings, discover(settings.plugins), pool, adapters, Runs(settings))
    demo = shell.build(context)
    _, url, _ = demo.launch(**server.options(context) | {"server_port": None}, prevent_thread_lock=True)
    yield Client(url, verbose=False)
    demo.close(verbose=False)


@pytest.mark.filterwarnings("ignore")  # Gradio's and httpx's own
def test_limits_above_their_defaults_hold_from_the_endpoint_to_the_base(client: Client) -> None:
    text = "a word " * 35_714 + "ab"
    _, answer = client.predict(text, labels="x, y", api_name="/classification")
    assert len(text) == 250_000 and "the first 256 were read" in answer["notes"][0]
    with pytest.raises(AppError, match=r"It says 300,001 characters; the limit is 300,000 \(GRAFT_TEXT_LENGTH\)"):
        client.predict("a" * 300_001, api_name="/classification")
    for endpoint in ("/generation", "/summarization"):
        with pytest.raises(AppError, match="reads and writes 256 tokens in all"):
            client.predict("notes", max_new_tokens=5000, api_name=endpoint)
        with pytest.raises(AppError, match="5001 is greater than maximum value 5000"):
            client.predict("notes", max_new_tokens=5001, api_name=endpoint)
